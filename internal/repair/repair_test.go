package repair

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, dir string) *mmapwal.DiskStorage {
	t.Helper()
	wal, err := mmapwal.Open(dir, &mmapwal.Options{FileDataSize: entryfile.MinDataBytes, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	return wal
}

func save(t *testing.T, wal *mmapwal.DiskStorage, from, to uint64) {
	t.Helper()
	for i := from; i <= to; i++ {
		e := &raftpb.Entry{Index: new(i), Term: new(uint64(1)), Data: fmt.Appendf(nil, "entry %d", i)}
		must(t, wal.Save(&raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(i)}, []*raftpb.Entry{e}, nil))
	}
}

func contentOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	content := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	for _, e := range entries {
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		content[e.Name()] = string(p)
	}
	return content
}

func put(t *testing.T, dir string, content map[string]string) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	for name, p := range content {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(p), 0o600))
	}
}

// flip changes one byte of a file.
func flip(content map[string]string, name string, at int) {
	p := []byte(content[name])
	p[at] ^= 0xff
	content[name] = string(p)
}

const record = 32 + 8 // bytes that the record of an entry takes

// threeFiles returns a log of the entries 1 to 30 in three files, which was closed.
func threeFiles(t *testing.T) map[string]string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "made")
	for first := uint64(1); first <= 21; first += 10 {
		wal := open(t, dir)
		save(t, wal, first, first+9)
		crashed := contentOf(t, dir)
		must(t, wal.Close())
		if first < 21 {
			put(t, dir, crashed) // the next Open begins a new file
		}
	}
	content := contentOf(t, dir)
	if len(content) != 4 {
		t.Fatalf("%d files", len(content))
	}
	return content
}

// damaged returns a log with damage of every sort: entries up to 17 can be saved.
func damaged(t *testing.T) map[string]string {
	content := threeFiles(t)
	flip(content, "wal.meta", 50)
	flip(content, "00001.wal", 5*entryfile.SlotBytes)
	flip(content, "00002.wal", entryfile.DataStart+7*record+32)
	return content
}

// rehearsed rehearses the repair of the log in dir.
func rehearsed(t *testing.T, fsys vfs.FS, dir string) *Plan {
	t.Helper()
	h := host.OS()
	h.FS = fsys
	p, err := Rehearse(context.Background(), dir, Options{Host: h})
	must(t, err)
	return p
}

// expectRepaired checks that the log is whole, and holds the entries 1 to last.
func expectRepaired(t *testing.T, dir string, last uint64) {
	t.Helper()
	l, err := inspect.Look(context.Background(), vfs.OS(), dir, inspect.Options{Check: true})
	must(t, err)
	if l.Damaged() || l.First != 1 || l.Last != last {
		t.Fatalf("entries %d to %d, want 1 to %d: %+v", l.First, l.Last, last, l.Problems)
	}
	wal := open(t, dir)
	defer wal.Close()
	es, err := wal.Entries(1, last+1, 1<<30)
	must(t, err)
	for k, e := range es {
		if string(e.Data) != fmt.Sprintf("entry %d", k+1) {
			t.Fatalf("entry %d holds %q", k+1, e.Data)
		}
	}
}

// expectSaved checks that all that content says is in the log as it was, or in the
// backup.
func expectSaved(t *testing.T, content map[string]string, dir, backup string) {
	t.Helper()
	now, saved := contentOf(t, dir), contentOf(t, backup)
	for name, p := range content {
		if now[name] != p && saved[name] != p {
			t.Fatalf("%s as it was is neither in the log nor in the backup", name)
		}
	}
}

// changes are the operations that change something.
var changes = []vfstest.Op{
	vfstest.OpMkdirAll, vfstest.OpCreate, vfstest.OpRename, vfstest.OpRemove, vfstest.OpSyncDir, vfstest.OpTruncate,
	vfstest.OpReserve, vfstest.OpSync, vfstest.OpWrite, vfstest.OpMsync,
}

// TestStopped: a repair that fails or ends at any operation has lost nothing, and a
// second one ends well. FULL=1 takes every operation.
func TestStopped(t *testing.T) {
	content := damaged(t)
	step := stride
	if os.Getenv("FULL") != "" {
		step = 1
	}
	for name, hook := range map[string]func(n int) vfstest.Hook{
		"full":    func(n int) vfstest.Hook { return vfstest.FailNth(n, syscall.ENOSPC, changes...) },
		"failing": func(n int) vfstest.Hook { return vfstest.FailNth(n, syscall.EIO, changes...) },
		"gone":    func(n int) vfstest.Hook { return vfstest.FailFrom(n, syscall.EIO, changes...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := 1
			for ; stoppedAt(t, content, hook(n)); n += step {
			}
			if t.Logf("the last of %d", n); n < 20 {
				t.Error("it has more operations than that")
			}
		})
	}
}

// stoppedAt repairs with a hook, and again if that failed. It reports whether the
// hook let anything fail.
func stoppedAt(t *testing.T, content map[string]string, hook vfstest.Hook) bool {
	t.Helper()
	var fired atomic.Bool
	root, err := os.MkdirTemp(t.TempDir(), "")
	must(t, err)
	defer os.RemoveAll(root)
	dir, first, second := filepath.Join(root, "log"), filepath.Join(root, "first"), filepath.Join(root, "second")
	put(t, dir, content)
	var turn vfstest.Switch
	p := rehearsed(t, vfstest.New(vfs.OS(), turn.Before), dir)
	turn.Set(func(op vfstest.Op, name string) error {
		err := hook(op, name)
		if err != nil {
			fired.Store(true)
		}
		return err
	})
	failure := p.Execute(context.Background(), first)
	turn.Set(nil)
	must(t, p.Close())
	backup := first
	if p.Report.Backup == "" {
		expectSaved(t, content, dir, "none") // nothing has changed before the backup is complete
		backup = second
	}
	expectSaved(t, content, dir, first)
	if failure != nil {
		p := rehearsed(t, vfs.OS(), dir)
		if p.Report.Refused != "" {
			t.Fatalf("after %v: %s", failure, p.Report.Refused)
		}
		if p.Report.Needed {
			must(t, p.Execute(context.Background(), second))
		}
		must(t, p.Close())
	}
	expectRepaired(t, dir, 17)
	expectSaved(t, content, dir, backup)
	return fired.Load()
}

// TestBackup: what is copied is complete and said so; a place that is taken, or a copy
// that differs, is refused.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	content := map[string]string{"a": "content", "b": "", "c": string(make([]byte, 3<<20)) + "end"}
	put(t, dir, content)
	target := filepath.Join(t.TempDir(), "x", "y")
	must(t, backUp(vfs.OS(), dir, target, &Report{Changed: []string{"a", "b", "c"}}))
	saved := contentOf(t, target)
	for name, p := range content {
		if saved[name] != p {
			t.Errorf("%s differs", name)
		}
	}
	var m Manifest
	must(t, json.Unmarshal([]byte(saved[ManifestName]), &m))
	if sum := fmt.Sprintf("%x", sha256.Sum256([]byte("content"))); len(saved) != 4 || len(m.Files) != 3 || m.Log != dir || m.Files[0] != (ManifestEntry{"a", 7, sum}) || len(m.Plan.Changed) != 3 {
		t.Errorf("%d files, %+v", len(saved), m)
	}
	if err := backUp(vfs.OS(), dir, target, &Report{Changed: []string{"a"}}); err == nil {
		t.Error("a backup was written over another")
	}
	lying := &lyingFS{FS: vfs.OS(), dir: filepath.Join(t.TempDir(), "lying")}
	if err := backUp(lying, dir, lying.dir, &Report{Changed: []string{"a"}}); err == nil {
		t.Error("a copy that differs was accepted")
	}
	if _, err := os.Stat(lying.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

// lyingFS forgets what is written.
type lyingFS struct {
	vfs.FS
	dir string
}

func (l *lyingFS) Create(name string) (vfs.File, error) {
	f, err := l.FS.Create(name)
	return lyingFile{f}, err
}

type lyingFile struct{ vfs.File }

func (lyingFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// TestLocked: nobody repairs a log that is open, or that another one repairs.
func TestLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	put(t, dir, damaged(t))
	p := rehearsed(t, vfs.OS(), dir)
	if _, err := Rehearse(context.Background(), dir, Options{}); !errors.Is(err, mmapwal.ErrLocked) {
		t.Errorf("a second repair: %v", err)
	}
	if _, err := mmapwal.Open(dir, nil); !errors.Is(err, mmapwal.ErrLocked) {
		t.Errorf("Open: %v", err)
	}
	must(t, p.Close())
}

// TestCancelled: a rehearsal that is cancelled says so, and changes nothing.
func TestCancelled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	content := damaged(t)
	put(t, dir, content)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Rehearse(ctx, dir, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	for name, p := range contentOf(t, dir) {
		if content[name] != p {
			t.Errorf("%s has changed", name)
		}
	}
	must(t, rehearsed(t, vfs.OS(), dir).Close()) // the lock was given up
}

// TestFullFiles: the record that ends a full file is no entry, and a spare file no part
// of the log, whatever is in it.
func TestFullFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	wal := open(t, dir)
	big := func(i uint64) []byte { return bytes.Repeat([]byte{byte(i)}, 100_000) }
	for i := range uint64(25) { // ten fill a file
		e := &raftpb.Entry{Index: new(i + 1), Term: new(uint64(1)), Data: big(i + 1)}
		must(t, wal.Save(&raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1))}, []*raftpb.Entry{e}, nil))
	}
	must(t, wal.CreateSnapshot(10, nil, nil))
	for wal.Stats().SpareFiles == 0 { // the test's time limit ends it
		time.Sleep(time.Millisecond)
	}
	crashed := contentOf(t, dir)
	must(t, wal.Close())
	for name, content := range map[string]map[string]string{"crashed": crashed, "closed": contentOf(t, dir)} {
		t.Run(name, func(t *testing.T) {
			if len(content) != 4 || content["00001.spare"] == "" {
				t.Fatalf("there are %d files", len(content))
			}
			flip(content, "00001.spare", 100)
			flip(content, "00002.wal", entryfile.DataStart+4*(32+100_000)+500) // entry 15
			dir, backup := filepath.Join(t.TempDir(), "log"), filepath.Join(t.TempDir(), "backup")
			put(t, dir, content)
			p := rehearsed(t, vfs.OS(), dir)
			defer p.Close()
			if r := &p.Report; r.Before != (Range{11, 25, 14}) || r.After != (Range{11, 14, 4}) || slices.Contains(r.Changed, "00001.spare") {
				t.Fatalf("%+v", r)
			}
			must(t, p.Execute(context.Background(), backup))
			must(t, p.Close())
			wal := open(t, dir)
			defer wal.Close()
			es, err := wal.Entries(11, 15, 1<<30)
			must(t, err)
			for k, e := range es {
				if !bytes.Equal(e.Data, big(uint64(k+11))) {
					t.Errorf("entry %d holds something else", e.GetIndex())
				}
			}
		})
	}
}
