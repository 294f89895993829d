package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph/samples"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestExportImported: imported and exported, a log is in Dgraph's eyes what it was.
func TestExportImported(t *testing.T) {
	for _, name := range append(slices.Clone(samples.Names), samples.Encrypted) {
		t.Run(name, func(t *testing.T) {
			src, want := samples.Unpack(t, name)
			parent := t.TempDir()
			log, dst := filepath.Join(parent, "log"), filepath.Join(parent, "dgraph")
			args, key := []string{"import", "--from", "dgraph", src, log}, []byte(nil)
			if name == samples.Encrypted {
				args, key = append(args, "--key-file", keyFile(t, samples.EncryptedKey)), []byte(samples.EncryptedKey)
			}
			succeed(t, args...)
			var s summary
			must(t, json.Unmarshal([]byte(succeed(t, "export", "--to", "dgraph", "--json", log, dst)), &s))
			if s.Entries != want.EntryCount || s.LastIndex != want.LastIndex || s.Encrypted {
				t.Errorf("summary %+v", s)
			}
			was, err := dgraph.Open(src, key)
			must(t, err)
			is, err := dgraph.Open(dst, nil)
			must(t, err)
			must(t, transfer.Compare(&was.Contents, &is.Contents, func(int) {}))
			must(t, transfer.Compare(&was.Contents, readByOffsets(t, dst), func(int) {}))
			onlyThere(t, parent, "dgraph", "log")
		})
	}
}

// readByOffsets reads a directory as Dgraph does: by offsets alone.
func readByOffsets(t *testing.T, dir string) *transfer.Contents {
	t.Helper()
	meta, err := os.ReadFile(filepath.Join(dir, "wal.meta"))
	must(t, err)
	if len(meta) != 1<<20 {
		t.Errorf("wal.meta has %d bytes", len(meta))
	}
	u64, u32 := binary.BigEndian.Uint64, binary.BigEndian.Uint32
	prefixed := func(p []byte, at uint64) []byte { return p[at+4:][:u32(p[at:])] }
	c := &transfer.Contents{
		RaftID: u64(meta), GroupID: u64(meta[8:]), Checkpoint: u64(meta[16:]),
		HardState: new(raftpb.HardState), Snapshot: new(raftpb.Snapshot),
		First: u64(meta[1024:]) + 1, Last: u64(meta[1024:]),
	}
	must(t, proto.Unmarshal(prefixed(meta, 512), c.HardState))
	must(t, proto.Unmarshal(prefixed(meta, 1040), c.Snapshot))
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	must(t, err)
	var es []*raftpb.Entry
	for _, name := range names { // numbered as they follow each other
		file, err := os.ReadFile(name)
		must(t, err)
		before := uint64(0)
		for slot := file[:960_000]; len(slot) > 0 && u64(slot[8:]) != 0; slot = slot[32:] {
			at := u64(slot[16:])
			if at <= before {
				t.Fatalf("offsets do not rise: %d after %d", at, before)
			}
			before = at
			e := &raftpb.Entry{Term: new(u64(slot)), Index: new(u64(slot[8:])), Type: new(raftpb.EntryType(int32(u64(slot[24:])))), Data: prefixed(file, at)}
			es, c.Last = append(es, e), e.GetIndex()
		}
		if tail := file[1<<20-16 : 1<<20]; !bytes.Equal(tail, make([]byte, 16)) {
			t.Fatalf("Dgraph would take %x for a key", tail)
		}
	}
	c.Entries = func(yield func(*raftpb.Entry, error) bool) {
		for _, e := range es {
			if !yield(e, nil) {
				return
			}
		}
	}
	return c
}

// entries returns entries of term 1 with some data.
func entries(first, last uint64) (es []*raftpb.Entry) {
	for i := first; i <= last; i++ {
		es = append(es, &raftpb.Entry{Index: new(i), Term: new(uint64(1)), Data: bytes.Repeat([]byte{byte(i)}, int(i%50))})
	}
	return es
}

// TestExportLive: the log is in use, encrypted, and retains entries below its
// snapshot; some have lost their data.
func TestExportLive(t *testing.T) {
	key, parent := strings.Repeat("k", 32), t.TempDir()
	src, dst := filepath.Join(parent, "log"), filepath.Join(parent, "dgraph")
	wal, err := mmapwal.Open(src, &mmapwal.Options{Key: []byte(key), RetainEntries: 10, FileDataSize: 1 << 20})
	must(t, err)
	defer wal.Close()
	must(t, wal.Save(&raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(40_000))}, entries(1, 40_000), nil))
	must(t, wal.CreateSnapshot(100, &raftpb.ConfState{Voters: []uint64{1}}, []byte("snapshot")))
	must(t, wal.TruncateEntriesUntil(101))

	for _, test := range []struct{ key, says string }{{"", "--key-file"}, {strings.Repeat("w", 32), "unwrapped"}} {
		args := []string{"export", "--to", "dgraph", src, dst}
		if test.key != "" {
			args = append(args, "--key-file", keyFile(t, test.key))
		}
		if code, _, errs := execute(args...); code != exitNoLook || !strings.Contains(errs, test.says) {
			t.Errorf("exit code %d: %s", code, errs)
		}
	}
	out := succeed(t, "export", "--to", "dgraph", src, dst, "--key-file", keyFile(t, key))
	for _, want := range []string{"exported to", "39900 (101 to 40000)", "10 entries that the snapshot covers", "(not encrypted)"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	want, err := contentsOf(wal)
	must(t, err)
	must(t, transfer.Compare(want, readByOffsets(t, dst), func(int) {}))
	onlyThere(t, parent, "dgraph", "log")
}

func TestExportRefuses(t *testing.T) {
	parent := t.TempDir()
	src, dst := filepath.Join(parent, "log"), filepath.Join(parent, "dgraph")
	wal, err := mmapwal.Init(src)
	must(t, err)
	must(t, wal.Save(nil, entries(1, 10), nil))
	must(t, wal.CreateSnapshot(5, &raftpb.ConfState{Voters: []uint64{1}}, make([]byte, dgraph.MaxSnapshot)))
	must(t, wal.Close())
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"large snapshot":    {[]string{"--to", "dgraph", src, dst}, exitFailed, "create a smaller one first"},
		"no --to":           {[]string{src, dst}, exitUsage, "\"to\" not set"},
		"other --to":        {[]string{"--to", "etcd", src, dst}, exitUsage, "only dgraph"},
		"DST is not empty":  {[]string{"--to", "dgraph", src, parent}, exitUsage, "is not empty"},
		"DST in SRC":        {[]string{"--to", "dgraph", src, filepath.Join(src, "x")}, exitUsage, "which is only read"},
		"no SRC":            {[]string{"--to", "dgraph", src + "x", dst}, exitNoLook, "no such file"},
		"a key for nothing": {[]string{"--to", "dgraph", src, dst, "--key-file", keyFile(t, strings.Repeat("k", 32))}, exitNoLook, "leave out --key-file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := execute(append([]string{"export"}, test.args...)...)
			if code != test.code || !strings.Contains(errs, test.says) || out != "" {
				t.Errorf("exit code %d, want %d and %q in:\n%s%s", code, test.code, test.says, out, errs)
			}
			onlyThere(t, parent, "log")
		})
	}
}

func TestExportInterrupted(t *testing.T) {
	parent := t.TempDir()
	src := filepath.Join(parent, "log")
	wal, err := mmapwal.Init(src)
	must(t, errors.Join(err, wal.Save(nil, entries(1, 100), nil), wal.Close()))
	for _, at := range []int{1, 100, 101, 199} {
		ctx, cancel := context.WithCancel(context.Background())
		c := conversion{src: src, dst: filepath.Join(parent, "dgraph"), verb: "export", errs: io.Discard}
		c.step = func(done int) {
			if done == at {
				cancel()
			}
		}
		if _, err := c.exportDgraph(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped at %d: %v", at, err)
		}
		onlyThere(t, parent, "log")
	}
}
