package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/internal/golden"
)

// etcdSample unpacks a directory that etcd wrote; want is what etcd reads.
func etcdSample(t *testing.T, name string) (dir string, want *golden.Log) {
	t.Helper()
	dir = t.TempDir()
	name = filepath.Join("internal", "etcd", "testdata", name)
	golden.Unpack(t, name+".tar.gz", dir)
	return dir, golden.ReadJSON[golden.Log](t, name+".json")
}

// sameAsEtcd compares a log with what etcd reads.
func sameAsEtcd(t *testing.T, want *golden.Log, dir string, key []byte) {
	t.Helper()
	wal, err := openSource(dir, key)
	must(t, err)
	defer wal.Close()
	c, err := contentsOf(wal)
	must(t, err)
	es, err := wal.Entries(c.First, c.Last+1, 1<<40)
	if c.Last < c.First {
		es, err = nil, nil
	}
	must(t, err)
	got := golden.Log{RaftID: c.RaftID, GroupID: c.GroupID, Checkpoint: c.Checkpoint}
	got.Set(c.HardState, c.Snapshot, c.First, es)
	if got, want := golden.JSON(t, got), golden.JSON(t, want); got != want {
		t.Errorf("the log holds\n%s\nwant\n%s", got, want)
	}
}

// TestImportEtcd: what etcd reads from a directory is what our log has.
func TestImportEtcd(t *testing.T) {
	names, err := filepath.Glob("internal/etcd/testdata/*.tar.gz")
	must(t, err)
	if len(names) < 12 {
		t.Fatalf("%d samples", len(names))
	}
	notes := map[string]string{
		"torn":                     "dropped a torn write of 5",
		"replaced":                 "left out 80 entries that later ones replaced",
		"without-snap-file":        "begins with the first entry",
		"older-snap-file":          "begins with an older snapshot",
		"purged-without-snap-file": "the snapshot has no data",
	}
	for _, path := range names {
		name := strings.TrimSuffix(filepath.Base(path), ".tar.gz")
		t.Run(name, func(t *testing.T) {
			src, want := etcdSample(t, name)
			before, parent := fingerprint(t, src), t.TempDir()
			dst := filepath.Join(parent, "log")
			var s summary
			must(t, json.Unmarshal([]byte(succeed(t, "import", "--from", "etcd", "--json", src, dst)), &s))
			if s.RaftID != want.RaftID || s.Commit != want.HardState.Commit || s.SnapshotIndex != want.Snapshot.Index ||
				s.FirstIndex != want.First || s.Entries != len(want.Entries) || s.Encrypted {
				t.Errorf("summary %+v", s)
			}
			if said := strings.Join(s.Notes, "\n"); !strings.Contains(said, notes[name]) {
				t.Errorf("notes %q", said)
			}
			onlyThere(t, parent, "log")
			if after := fingerprint(t, src); after != before {
				t.Errorf("the source was\n%sand is\n%s", before, after)
			}
			sameAsEtcd(t, want, dst, nil)
			if got := openStats(t, dst, nil); !got.Recovery.Clean {
				t.Error("the new log was not closed cleanly")
			}
		})
	}
}

func TestImportEtcdEncrypted(t *testing.T) {
	src, want := etcdSample(t, "replaced")
	dst, key := filepath.Join(t.TempDir(), "log"), strings.Repeat("n", 32)
	out := succeed(t, "import", "--from", "etcd", filepath.Join(src, "wal"), dst, "--new-key-file", keyFile(t, key))
	for _, want := range []string{"(encrypted)", "91 (1 to 91), all compared", "note", "left out 80 entries"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	sameAsEtcd(t, want, dst, []byte(key))
	if got := openStats(t, dst, []byte(key)); !got.Encrypted || got.PlainFiles != 0 {
		t.Errorf("stats %+v", got)
	}
}

func TestImportEtcdDamage(t *testing.T) {
	src, _ := etcdSample(t, "rotated")
	names, err := filepath.Glob(filepath.Join(src, "wal", "*.wal"))
	must(t, err)
	p, err := os.ReadFile(names[1])
	must(t, err)
	p[bytes.Index(p, []byte("entry"))] ^= 1
	must(t, os.WriteFile(names[1], p, 0o600))
	parent := t.TempDir()
	code, out, errs := execute("import", "--from", "etcd", src, filepath.Join(parent, "log"))
	if code != exitFailed || !strings.Contains(errs, names[1]+", offset ") || out != "" {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
	onlyThere(t, parent)
}

// TestImportOfALiveEtcd: it goes on writing meanwhile.
func TestImportOfALiveEtcd(t *testing.T) {
	src, _ := etcdSample(t, "rotated")
	names, err := filepath.Glob(filepath.Join(src, "wal", "*.wal"))
	must(t, err)
	last := names[len(names)-1]
	whole, err := os.ReadFile(last)
	must(t, err)
	used := bytes.TrimRight(whole, "\x00")
	must(t, os.Truncate(last, int64(len(used)-20))) // the last hard state is not whole yet

	parent := t.TempDir()
	c := conversion{src: src, dst: filepath.Join(parent, "log"), verb: "import", errs: io.Discard}
	c.step = func(done int) {
		if done == 10 {
			must(t, os.WriteFile(last, whole, 0o600))
		}
	}
	if _, err := c.importLog(context.Background(), c.openEtcd); !errors.Is(err, transfer.ErrDiffers) {
		t.Errorf("error %v", err)
	}
	onlyThere(t, parent)
}
