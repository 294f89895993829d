package compat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// update: write the golden logs anew.
var update = os.Getenv("UPDATE") != ""

// directory returns that of the logs of a version of the format.
func directory(version int) string {
	return filepath.Join("testdata", fmt.Sprintf("format-%d", version))
}

// names returns those of the logs in a directory, sorted.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	must(t, err)
	for _, path := range paths {
		all = append(all, strings.TrimSuffix(filepath.Base(path), ".json"))
	}
	return all
}

// TestPresent: the logs of the present version are those that this code writes, in
// what they hold. UPDATE=1 replaces them, unless the version is released.
func TestPresent(t *testing.T) {
	if entryfile.Version != metafile.Version {
		t.Fatalf("entry files have version %d, wal.meta has %d", entryfile.Version, metafile.Version)
	}
	dir, written := directory(metafile.Version), t.TempDir()
	writeAll(t, written)
	if update {
		must(t, replace(dir, written))
	}
	have := names(t, dir)
	if got, want := strings.Join(have, " "), strings.Join(names(t, written), " "); got != want && !isReleased(dir) {
		t.Errorf("there are %s, want %s: write them with UPDATE=1", got, want)
	}
	for _, name := range have {
		got, want := readFile(t, written, name), readFile(t, dir, name)
		if got != want {
			t.Errorf("%s: written now it holds something else: %s", name, golden.DiffLines(got, want))
		}
	}
}

// isReleased reports whether the logs in a directory have to stay as they are.
func isReleased(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "RELEASED"))
	return err == nil
}

// replace replaces the logs in a directory.
func replace(dir, written string) error {
	if isReleased(dir) {
		return fmt.Errorf("%s is released: its format is fixed, a change needs a new version", dir)
	}
	return errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(written)))
}

func TestReplace(t *testing.T) {
	dir, written := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "old.json"), nil, 0o600))
	must(t, os.WriteFile(filepath.Join(written, "RELEASED"), nil, 0o600))
	must(t, replace(dir, written))
	before := files(t, dir)
	if before != "RELEASED" {
		t.Errorf("there are %q", before)
	}
	if err := replace(dir, t.TempDir()); err == nil || files(t, dir) != before {
		t.Errorf("what is released was replaced: %v", err)
	}
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(dir, name+".json"))
	must(t, err)
	return string(p)
}

// TestAll opens the logs of all versions.
func TestAll(t *testing.T) {
	for version := 1; version <= metafile.Version; version++ {
		all := names(t, directory(version))
		if len(all) == 0 {
			t.Errorf("there are no logs of version %d", version)
		}
		for _, name := range all {
			t.Run(fmt.Sprintf("%d/%s", version, name), func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(directory(version), name)
				g := goldenLog{dir: t.TempDir(), want: golden.ReadJSON[expected](t, path+".json")}
				golden.Unpack(t, path+".tar.gz", g.dir)
				g.checkKeys(t)
				g.checkReadOnly(t)
				g.checkInspect(t)
				g.goOn(t)
			})
		}
	}
}

// goldenLog is a log that some version wrote.
type goldenLog struct {
	dir  string
	want *expected
}

// options returns those that it opens with.
func (g *goldenLog) options() *mmapwal.Options {
	o := &mmapwal.Options{FileDataSize: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
	if g.want.Encrypted {
		o.Key = masterKey
	}
	return o
}

func (g *goldenLog) open(t *testing.T, o *mmapwal.Options) *mmapwal.DiskStorage {
	t.Helper()
	wal, err := mmapwal.Open(g.dir, o)
	must(t, err)
	t.Cleanup(func() { _ = wal.Close() }) // it is closed already if the test passed
	return wal
}

// same compares the log with what it is to hold.
func (g *goldenLog) same(t *testing.T, wal *mmapwal.DiskStorage) {
	t.Helper()
	if got, want := golden.JSON(t, contents(t, wal)), golden.JSON(t, g.want.Log); got != want {
		t.Fatalf("it holds something else: %s", golden.DiffLines(got, want))
	}
	s, err := wal.Snapshot()
	must(t, err)
	if wal.Uint(mmapwal.SnapshotIndex) != s.GetMetadata().GetIndex() || wal.Uint(mmapwal.SnapshotTerm) != s.GetMetadata().GetTerm() {
		t.Errorf("Uint has the snapshot at %d of term %d", wal.Uint(mmapwal.SnapshotIndex), wal.Uint(mmapwal.SnapshotTerm))
	}
}

// checkKeys: an encrypted log is still one.
func (g *goldenLog) checkKeys(t *testing.T) {
	t.Helper()
	if !g.want.Encrypted {
		return
	}
	o := g.options()
	o.ReadOnly, o.Key = true, nil
	if _, err := mmapwal.Open(g.dir, o); !errors.Is(err, mmapwal.ErrKeyRequired) {
		t.Errorf("without a key: %v", err)
	}
	o.Key = oldKey
	if _, err := mmapwal.Open(g.dir, o); !errors.Is(err, mmapwal.ErrWrongKey) {
		t.Errorf("with another key: %v", err)
	}
}

// checkReadOnly: reading shows all, and changes nothing.
func (g *goldenLog) checkReadOnly(t *testing.T) {
	t.Helper()
	o := g.options()
	o.ReadOnly = true
	before := files(t, g.dir)
	wal := g.open(t, o)
	g.same(t, wal)
	if s := wal.Stats(); s.Recovery.Clean != g.want.Clean || s.Encrypted != g.want.Encrypted {
		t.Errorf("clean %v, encrypted %v", s.Recovery.Clean, s.Encrypted)
	}
	must(t, wal.Close())
	if after := files(t, g.dir); after != before {
		t.Error("reading changed files")
	}
}

// files returns the names and bytes of all files.
func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var all strings.Builder
	for _, e := range entries {
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		all.WriteString(e.Name())
		all.Write(p)
	}
	return all.String()
}

// checkInspect: what `mmapwal verify` runs finds no damage.
func (g *goldenLog) checkInspect(t *testing.T) {
	t.Helper()
	o := inspect.Options{Check: true}
	if g.want.Encrypted {
		var err error
		o.Wrapper, err = encryption.NewKeyWrapper(masterKey)
		must(t, err)
	}
	l, err := inspect.Look(context.Background(), vfs.OS(), g.dir, o)
	must(t, err)
	if l.Damaged() {
		t.Errorf("problems: %+v", l.Problems)
	}
}

// goOn writes to the log all that one can write, and reads it again.
func (g *goldenLog) goOn(t *testing.T) {
	t.Helper()
	wal := g.open(t, g.options())
	g.same(t, wal)
	last := g.want.First + uint64(len(g.want.Entries)) - 1
	term := g.want.HardState.Term + 1

	for _, e := range []struct{ first, last, term uint64 }{
		{last + 1, last + 5, term},
		{last + 3, last + 4, term + 1}, // instead of some of them
	} {
		g.save(t, wal, e.first, e.last, e.term)
		g.same(t, wal)
	}
	if len(g.want.Entries) > 10 { // of what the golden log had
		g.save(t, wal, last-1, last+3, term+2)
		g.same(t, wal)
	}
	must(t, wal.SetUint(mmapwal.CheckpointIndex, 77))
	g.want.Checkpoint = 77
	must(t, wal.Close())

	wal = g.open(t, g.options())
	if s := wal.Stats(); !s.Recovery.Clean {
		t.Error("it was not closed cleanly")
	}
	g.same(t, wal)
	at := last + 2
	must(t, wal.CreateSnapshot(at, confState(), []byte("new")))
	snapTerm := g.want.Entries[at-g.want.First].Term
	g.want.Entries, g.want.First = g.want.Entries[at+1-g.want.First:], at+1
	g.want.Snapshot = golden.Snapshot{Index: at, Term: snapTerm, ConfState: golden.ConfStateOf(confState()), Data: golden.Text([]byte("new"))}
	g.want.HardState.Commit = max(g.want.HardState.Commit, at)
	must(t, wal.Save(&raftpb.HardState{Term: &g.want.HardState.Term, Vote: &g.want.HardState.Vote, Commit: &g.want.HardState.Commit}, nil, nil))
	g.same(t, wal)
	must(t, wal.Close())
	g.checkInspect(t)
	wal = g.open(t, g.options())
	g.same(t, wal)
	must(t, wal.Close())
}

// save saves entries, with a hard state, and notes what the log is to hold then.
func (g *goldenLog) save(t *testing.T, wal *mmapwal.DiskStorage, first, last, term uint64) {
	t.Helper()
	h := &raftpb.HardState{Term: &term, Vote: new(uint64(1)), Commit: new(max(g.want.HardState.Commit, g.want.Snapshot.Index))}
	var es []*raftpb.Entry
	for i := first; i <= last; i++ {
		es = append(es, entry(i, term))
	}
	must(t, wal.Save(h, es, nil))
	var saved golden.Log
	saved.Set(h, nil, first, es)
	g.want.HardState = saved.HardState
	g.want.Entries = append(g.want.Entries[:first-g.want.First], saved.Entries...)
}
