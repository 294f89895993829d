package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph/samples"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// succeed runs a command that is to succeed, and returns what it printed.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := execute(args...)
	if code != exitOK || errs != "" {
		t.Fatalf("%q: exit code %d\n%s", args, code, errs)
	}
	return out
}

// fingerprint returns names, sizes, times and bytes of all files in dir.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	must(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil || entry.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		_, err = io.Copy(h, io.LimitReader(f, 4<<20))
		fmt.Fprintf(&all, "%s %d %v %v %x\n", path, info.Size(), info.ModTime(), info.Mode(), h.Sum(nil))
		return err
	}))
	return all.String()
}

// onlyThere reports an error unless dir holds these names.
func onlyThere(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, names)
	}
}

// TestImport: what Dgraph reads from a directory is what our log has.
func TestImport(t *testing.T) {
	for _, name := range samples.Names {
		t.Run(name, func(t *testing.T) {
			src, want := samples.Unpack(t, name)
			before := fingerprint(t, src)
			parent := t.TempDir()
			dst := filepath.Join(parent, "log")
			var s summary
			must(t, json.Unmarshal([]byte(succeed(t, "import", "--from", "dgraph", "--json", src, dst)), &s))
			if s.RaftID != want.RaftID || s.Commit != want.HardState.Commit || s.SnapshotIndex != want.Snapshot.Index ||
				s.FirstIndex != want.FirstIndex || s.LastIndex != want.LastIndex || s.Entries != want.EntryCount || s.Encrypted {
				t.Errorf("summary %+v", s)
			}
			onlyThere(t, parent, "log")
			if after := fingerprint(t, src); after != before {
				t.Errorf("the source was\n%sand is\n%s", before, after)
			}
			sameLog(t, src, "", dst, nil)
			if got := openStats(t, dst, nil); !got.Recovery.Clean {
				t.Error("the new log was not closed cleanly")
			}
		})
	}
}

// sameLog compares a directory of Dgraph with a log.
func sameLog(t *testing.T, dir, dirKey, log string, logKey []byte) {
	t.Helper()
	var key []byte
	if dirKey != "" {
		key = []byte(dirKey)
	}
	want, err := dgraph.Open(dir, key)
	must(t, err)
	wal, err := openSource(log, logKey)
	must(t, err)
	defer wal.Close()
	got, err := contentsOf(wal)
	must(t, err)
	must(t, transfer.Compare(&want.Contents, got, func(int) {}))
	if first, err := wal.FirstIndex(); err != nil || first != want.First {
		t.Errorf("first index %d, %v, want %d", first, err, want.First)
	}
}

// openStats opens the log as its owner would.
func openStats(t *testing.T, dir string, key []byte) mmapwal.Stats {
	t.Helper()
	wal, err := open(t, dir, key)
	must(t, err)
	return wal.Stats()
}

func TestImportTable(t *testing.T) {
	src, _ := samples.Unpack(t, "rotated")
	dst := t.TempDir() // empty
	out := succeed(t, "import", "--from", "dgraph", src, dst)
	for _, want := range []string{
		"imported to", "not encrypted", "3, 1", "44000", "term 8, vote 1, commit 69990", "index 45000, term 5, 26 bytes",
		"25000 (45001 to 70000), all compared", "15000 entries that the snapshot covers", "2 entry files",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	sameLog(t, src, "", dst, nil)
}

func TestImportEncrypted(t *testing.T) {
	src, _ := samples.Unpack(t, samples.Encrypted)
	parent, newKey := t.TempDir(), strings.Repeat("n", 32)
	dst := filepath.Join(parent, "log")
	for _, test := range []struct {
		key, says string
		code      int
	}{
		{"", "give Dgraph's encryption key with --key-file", exitNoLook},
		{strings.Repeat("w", 32), "does not open KEYREGISTRY", exitNoLook},
		{"short", "16, 24 or 32 bytes", exitUsage},
	} {
		args := []string{"import", "--from", "dgraph", src, dst}
		if test.key != "" {
			args = append(args, "--key-file", keyFile(t, test.key))
		}
		if code, _, errs := execute(args...); code != test.code || !strings.Contains(errs, test.says) {
			t.Errorf("exit code %d, want %d and %q in: %s", code, test.code, test.says, errs)
		}
		onlyThere(t, parent)
	}
	var s summary
	out := succeed(t, "import", "--from", "dgraph", src, dst, "--json",
		"--key-file", keyFile(t, samples.EncryptedKey), "--new-key-file", keyFile(t, newKey+"\n"))
	must(t, json.Unmarshal([]byte(out), &s))
	if !s.Encrypted || s.Files != 3 || s.EncryptedFiles != 2 {
		t.Errorf("summary %+v", s)
	}
	sameLog(t, src, samples.EncryptedKey, dst, []byte(newKey))
	if got := openStats(t, dst, []byte(newKey)); !got.Encrypted || got.PlainFiles != 0 {
		t.Errorf("stats %+v", got)
	}
	if _, err := openSource(dst, nil); !errors.Is(err, mmapwal.ErrKeyRequired) {
		t.Errorf("without the key: %v", err)
	}
}

// TestImportInterrupted: wherever it is stopped, nothing is left.
func TestImportInterrupted(t *testing.T) {
	src, want := samples.Unpack(t, "overwritten")
	for _, at := range []int{1, 100, want.EntryCount, want.EntryCount + 1, 2*want.EntryCount - 1} {
		parent := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		c := conversion{src: src, dst: filepath.Join(parent, "log"), verb: "import", errs: io.Discard}
		c.step = func(done int) {
			if done == at {
				cancel()
			}
		}
		if _, err := c.importLog(ctx, c.openDgraph); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped at %d: %v", at, err)
		}
		onlyThere(t, parent)
	}
}

// TestImportOfAChangingSource: something writes to it meanwhile.
func TestImportOfAChangingSource(t *testing.T) {
	src, _ := samples.Unpack(t, "small")
	parent := t.TempDir()
	c := conversion{src: src, dst: filepath.Join(parent, "log"), verb: "import", errs: io.Discard}
	c.step = func(done int) {
		if done == 50 {
			f, err := os.OpenFile(filepath.Join(src, "wal.meta"), os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt([]byte{1}, 0) // the Raft ID
			must(t, errors.Join(err, f.Close()))
		}
	}
	if _, err := c.importLog(context.Background(), c.openDgraph); !errors.Is(err, transfer.ErrDiffers) {
		t.Errorf("error %v", err)
	}
	onlyThere(t, parent)
}

func TestImportRefuses(t *testing.T) {
	src, _ := samples.Unpack(t, "small")
	parent := t.TempDir()
	dst := filepath.Join(parent, "log")
	taken := t.TempDir()
	must(t, os.WriteFile(filepath.Join(taken, "file"), []byte("x"), 0o600))
	damaged, _ := samples.Unpack(t, "small")
	must(t, os.Truncate(filepath.Join(damaged, "00001.wal"), 1000))
	log := t.TempDir()
	wal, err := mmapwal.Init(log)
	must(t, errors.Join(err, wal.Close()))

	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no arguments":       {[]string{"--from", "dgraph"}, exitUsage, "accepts 2 arg"},
		"no --from":          {[]string{src, dst}, exitUsage, "\"from\" not set"},
		"other --from":       {[]string{"--from", "bolt", src, dst}, exitUsage, "there are dgraph and etcd"},
		"a key for etcd":     {[]string{"--from", "etcd", src, dst, "--key-file", keyFile(t, strings.Repeat("k", 32))}, exitUsage, "etcd does not encrypt"},
		"not of etcd":        {[]string{"--from", "etcd", src, dst}, exitNoLook, "00001.wal is not a name that etcd gives a file"},
		"no key file":        {[]string{"--from", "dgraph", src, dst, "--key-file", dst}, exitUsage, "no such file"},
		"DST is not empty":   {[]string{"--from", "dgraph", src, taken}, exitUsage, "is not empty; it holds file"},
		"DST is a file":      {[]string{"--from", "dgraph", src, filepath.Join(taken, "file")}, exitUsage, "not a directory"},
		"DST in SRC":         {[]string{"--from", "dgraph", src, filepath.Join(src, "log")}, exitUsage, "which is only read"},
		"DST is SRC":         {[]string{"--from", "dgraph", src, src}, exitUsage, "is not empty"},
		"DST without parent": {[]string{"--from", "dgraph", src, filepath.Join(dst, "a", "b")}, exitUsage, "no such file"},
		"no SRC":             {[]string{"--from", "dgraph", src + "x", dst}, exitNoLook, "no such file"},
		"a key for nothing":  {[]string{"--from", "dgraph", src, dst, "--key-file", keyFile(t, strings.Repeat("k", 32))}, exitNoLook, "leave out the key"},
		"a log of ours":      {[]string{"--from", "dgraph", log, dst}, exitNoLook, "needs no import"},
		"nothing":            {[]string{"--from", "dgraph", t.TempDir(), dst}, exitNoLook, "not a raftwal directory of Dgraph"},
		"damage":             {[]string{"--from", "dgraph", damaged, dst}, exitFailed, "00001.wal, offset 1000"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := execute(append([]string{"import"}, test.args...)...)
			if code != test.code || !strings.Contains(errs, test.says) || out != "" {
				t.Errorf("exit code %d, want %d and %q in:\n%s%s", code, test.code, test.says, out, errs)
			}
			onlyThere(t, parent)
			onlyThere(t, taken, "file")
			onlyThere(t, src, "00001.wal", "wal.meta")
		})
	}
}

// TestImportDoesNotWait: for who writes to a FIFO under the name of a file.
func TestImportDoesNotWait(t *testing.T) {
	for from, names := range map[string][]string{
		"dgraph": {"wal.meta", "00001.wal", "00002.wal", "KEYREGISTRY"},
		"etcd":   {"0000000000000000-0000000000000000.wal"},
	} {
		for _, name := range names {
			src, key := t.TempDir(), []string(nil)
			if from == "dgraph" {
				src, _ = samples.Unpack(t, "small")
				key = []string{"--key-file", keyFile(t, strings.Repeat("k", 32))}
			}
			if name != "KEYREGISTRY" {
				key = nil
			}
			_ = os.Remove(filepath.Join(src, name)) // it may not be there
			must(t, syscall.Mkfifo(filepath.Join(src, name), 0o600))
			code, out, errs := execute(append([]string{"import", "--from", from, src, filepath.Join(t.TempDir(), "log")}, key...)...)
			if code != exitNoLook || !strings.Contains(errs, "no regular file") {
				t.Errorf("%s: %s: exit code %d:\n%s%s", from, name, code, out, errs)
			}
		}
	}
}

// TestImportClampsCommit: as Open does, and the summary says so.
func TestImportClampsCommit(t *testing.T) {
	src, dst := t.TempDir(), filepath.Join(t.TempDir(), "log")
	e := &raftpb.Entry{Index: new(uint64(1)), Term: new(uint64(1)), Data: []byte("x")}
	c := &transfer.Contents{
		HardState: &raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(9))}, Snapshot: new(raftpb.Snapshot), First: 1, Last: 1,
		Entries: func(yield func(*raftpb.Entry, error) bool) { yield(e, nil) },
	}
	must(t, dgraph.Write(context.Background(), src, c, func(int) {}))
	if out := succeed(t, "import", "--from", "dgraph", src, dst); !strings.Contains(out, "commit 1\n") || !strings.Contains(out, "the source has commit 9") {
		t.Errorf("printed\n%s", out)
	}
	sameLog(t, src, "", dst, nil)
}

// TestImportThroughLink: a link to an empty directory stays a link.
func TestImportThroughLink(t *testing.T) {
	src, _ := samples.Unpack(t, "small")
	dst, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(dst, link))
	succeed(t, "import", "--from", "dgraph", src, link)
	sameLog(t, src, "", dst, nil)
}

// TestMeterIsQuiet: no bar where there is no terminal.
func TestMeterIsQuiet(t *testing.T) {
	var errs bytes.Buffer
	c := conversion{errs: &errs}
	m := c.newMeter(&transfer.Contents{First: 1, Last: 10})
	m.started = m.started.Add(-2e9)
	m.wrote(5)
	m.compared(5)
	m.close()
	if errs.Len() > 0 || m.screen == nil {
		t.Errorf("printed %q", errs.String())
	}
}

// openedByDgraph does to a log what Dgraph does when it only opens it: it removes files whose
// first slot is empty, and makes one if none is left.
func openedByDgraph(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	must(t, err)
	left := 0
	for _, name := range names {
		p, err := os.ReadFile(name)
		must(t, err)
		if bytes.Equal(p[8:16], make([]byte, 8)) {
			must(t, os.Remove(name))
		} else {
			left++
		}
	}
	if left == 0 {
		name := filepath.Join(dir, fmt.Sprintf("%05d.wal", len(names)+1))
		must(t, os.WriteFile(name, nil, 0o600))
		must(t, os.Truncate(name, 256<<20))
	}
}

// TestImportOfAnOpenedLog: a log that Dgraph has opened, and written nothing to, is imported
// where Open misses files; one that lacks entries is not.
func TestImportOfAnOpenedLog(t *testing.T) {
	for name, fill := range map[string]func(wal *mmapwal.DiskStorage){
		"hard state only": func(wal *mmapwal.DiskStorage) {
			must(t, wal.Save(&raftpb.HardState{Term: new(uint64(3)), Vote: new(uint64(2))}, nil, nil))
		},
		"a suffix replaced that spans files": func(wal *mmapwal.DiskStorage) {
			big := entriesOf(1, 300, 1)
			for _, e := range big {
				e.Data = make([]byte, 9000)
			}
			save(t, wal, 1, big...)
			save(t, wal, 3, entriesOf(60, 80, 3)...)
		},
		"a snapshot installed behind the entries": func(wal *mmapwal.DiskStorage) {
			save(t, wal, 1, entriesOf(1, 9, 1)...)
			must(t, wal.Save(nil, nil, &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(50)), Term: new(uint64(2))}}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := filepath.Join(t.TempDir(), "log")
			opts := quiet()
			opts.FileDataSize = 1 << 20
			wal, err := mmapwal.Open(src, opts)
			must(t, err)
			fill(wal)
			last, _ := wal.LastIndex()
			must(t, wal.Close())
			expectParts(t, exitNoLook, []string{"import", "--from", "dgraph", src, src + ".new"}, "needs no import")
			openedByDgraph(t, src)
			if _, err := mmapwal.Open(src, opts); err != nil && !strings.Contains(err.Error(), "import --from dgraph") && !strings.Contains(err.Error(), "header pages") {
				t.Errorf("Open does not name import: %v", err)
			}
			expectParts(t, exitOK, []string{"import", "--from", "dgraph", src, src + ".new"}, "imported to")
			wal, err = mmapwal.Open(src+".new", opts)
			must(t, err)
			if got, _ := wal.LastIndex(); got != last {
				t.Errorf("the last entry is %d, not %d", got, last)
			}
			must(t, wal.Close())
		})
	}
	dir := closedLog(t, nil)
	must(t, os.Remove(filepath.Join(dir, "00002.wal"))) // which had entries
	expectParts(t, exitNoLook, []string{"import", "--from", "dgraph", dir, dir + ".new"}, "needs no import")
	dir = closedLog(t, nil)
	flipByte(t, dir, "wal.meta", 50)
	expectParts(t, exitNoLook, []string{"import", "--from", "dgraph", dir, dir + ".new"}, "page 0 is damaged")
}
