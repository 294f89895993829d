package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// middle is a writer that calls do before the n-th write, counted from 0.
type middle struct {
	bytes.Buffer
	n, seen int
	do      func()
}

func (w *middle) Write(p []byte) (int, error) {
	if w.seen == w.n {
		w.do()
	}
	w.seen++
	return w.Buffer.Write(p)
}

// build makes a log with several files, superseded and cleared entries, and a
// snapshot in a file.
func build(t testing.TB, d *mmapwal.DiskStorage) {
	t.Helper()
	save(t, d, 1, 30, 1, 60_000)
	save(t, d, 25, 40, 2, 60_000) // a new file supersedes a suffix
	must(t, d.CreateSnapshot(9, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}, oracle.Data(9, 1, 5000)))
	must(t, d.Compact(5))
	must(t, d.TruncateEntriesUntil(10))
	save(t, d, 41, 45, 2, 100)
	save(t, d, 43, 44, 3, 100) // in the tail
	must(t, d.SetUint(mmapwal.RaftId, 11))
	must(t, d.SetUint(mmapwal.GroupId, 12))
	must(t, d.SetUint(mmapwal.CheckpointIndex, 13))
}

// clearData clears the data below an entry, which a snapshot covers.
func clearData(t testing.TB, d *mmapwal.DiskStorage, below uint64) {
	t.Helper()
	must(t, d.CreateSnapshot(below-1, nil, nil))
	must(t, d.TruncateEntriesUntil(below))
}

// TestPointInTime: whatever happens to the log while it is backed up, the backup
// holds what it was at the call.
func TestPointInTime(t *testing.T) {
	for name, do := range map[string]func(*mmapwal.DiskStorage){
		"append":  func(d *mmapwal.DiskStorage) { save(t, d, 45, 80, 3, 60_000) },
		"replace": func(d *mmapwal.DiskStorage) { save(t, d, 20, 90, 4, 30_000) },
		"clear":   func(d *mmapwal.DiskStorage) { clearData(t, d, 40) },
		"snapshot": func(d *mmapwal.DiskStorage) {
			must(t, d.CreateSnapshot(44, nil, oracle.Data(44, 3, 6000)))
			must(t, d.Compact(44))
		},
		"empty": func(d *mmapwal.DiskStorage) {
			must(t, d.Save(nil, nil, oracle.Snapshot(1001, 9)))
			save(t, d, 1002, 1003, 9, 100)
		},
		"sync": func(d *mmapwal.DiskStorage) { must(t, d.Sync()) },
	} {
		for _, edits := range [][]func(*mmapwal.Options){nil, {encrypted}} {
			for _, n := range []int{0, 4, 20} {
				t.Run(fmt.Sprint(name, len(edits), n), func(t *testing.T) {
					t.Parallel()
					d := open(t, t.TempDir(), edits...)
					build(t, d)
					want, done := content(t, d), false
					w := &middle{n: n, do: func() { do(d); done = true }}
					m, err := d.Backup(t.Context(), w)
					must(t, err)
					if !done {
						t.Fatalf("only %d writes", w.seen)
					}
					same(t, "restored", restored(t, keyed(m), w.Bytes()), want)
					next, _ := since(t, d, m)
					same(t, "with an increment", restored(t, keyed(m), w.Bytes(), next), content(t, d))
				})
			}
		}
	}
}

// keyed returns the options to restore a backup.
func keyed(m mmapwal.Manifest) *backup.RestoreOptions {
	if !m.Encrypted {
		return nil
	}
	return &backup.RestoreOptions{Key: key}
}

// TestBesideWriter: backups are made while another goroutine saves, replaces, clears
// and compacts; each is what the log was at one moment of the call.
func TestBesideWriter(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	var mu sync.Mutex
	var states []string
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		term := uint64(5)
		for step := uint64(0); ; step++ {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			last, _ := d.LastIndex()
			switch step % 8 {
			case 3:
				term++
				save(t, d, last-2, last+1, term, 2000)
			case 5:
				must(t, d.TruncateEntriesUntil(d.Uint(mmapwal.SnapshotIndex)+1))
			case 7:
				must(t, d.CreateSnapshot(last-5, nil, oracle.Data(last, term, int(step%2)*5000)))
				must(t, d.Compact(last-20))
			default:
				save(t, d, last+1, last+3, term, 20_000)
			}
			states = append(states, content(t, d))
			mu.Unlock()
		}
	})
	var chain [][]byte
	var m mmapwal.Manifest
	for k := range 6 {
		mu.Lock()
		states = []string{content(t, d)}
		mu.Unlock()
		var b []byte
		if k%3 == 0 {
			b, m = full(t, d)
			chain = [][]byte{b}
		} else {
			b, m = since(t, d, m)
			chain = append(chain, b)
		}
		got := restored(t, nil, chain...)
		mu.Lock()
		if !slices.Contains(states, got) {
			t.Errorf("backup %d is none of the %d states of the log meanwhile", k, len(states))
		}
		mu.Unlock()
	}
	close(stop)
	writer.Wait()
}

// TestOnlyWhatIsUsed: a backup does not grow with the sizes of the files, nor an
// increment with what its parent has.
func TestOnlyWhatIsUsed(t *testing.T) {
	d := open(t, t.TempDir(), func(o *mmapwal.Options) { o.FileDataSize = 64 << 20 })
	save(t, d, 1, 100, 1, 1000)
	b, m := full(t, d)
	if len(b) > 200_000 {
		t.Errorf("100 entries of 1,000 bytes take %d bytes", len(b))
	}
	b, m = since(t, d, m)
	if len(b) > 40_000 || m.Find("00001.wal").Stored != 0 || !m.Find("00001.wal").Based {
		t.Errorf("nothing new takes %d bytes: %+v", len(b), m.Files)
	}
	save(t, d, 101, 110, 1, 1000)
	b, m = since(t, d, m)
	if n := m.Find("00001.wal").Stored; n < 10_000 || n > 12_000 {
		t.Errorf("10 entries of 1,000 bytes take %d bytes", n)
	}
	if len(b) > 50_000 {
		t.Errorf("10 entries of 1,000 bytes take %d bytes in all", len(b))
	}
}

// TestOfClearedLog: what was punched out is not in the backup.
func TestOfClearedLog(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	save(t, d, 1, 10, 1, 90_000)
	must(t, d.Save(nil, []*raftpb.Entry{{Index: new(uint64(11)), Term: new(uint64(1)), Type: raftpb.EntryConfChange.Enum(), Data: []byte("spared")}}, nil))
	save(t, d, 12, 40, 1, 90_000)
	before, m := full(t, d)
	clearData(t, d, 40)
	want := content(t, d)
	after, _ := full(t, d)
	if len(after) > len(before)-2_000_000 {
		t.Errorf("%d bytes after clearing, %d before", len(after), len(before))
	}
	same(t, "restored", restored(t, nil, after), want)
	next, _ := since(t, d, m)
	same(t, "as an increment", restored(t, nil, before, next), want)
}

// TestForks: an increment over the backup of another copy of the log, which went
// another way in the same file, has all of that file.
func TestForks(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	save(t, d, 1, 10, 1, 1000)
	must(t, d.Close())
	for name, other := range map[string]struct {
		to   uint64
		size int
	}{"longer": {25, 1000}, "shorter": {15, 1000}, "same length": {20, 1000}, "other sizes": {25, 999}} {
		t.Run(name, func(t *testing.T) {
			one, two := t.TempDir(), t.TempDir()
			must(t, os.CopyFS(one, os.DirFS(dir)))
			must(t, os.CopyFS(two, os.DirFS(dir)))
			d, e := open(t, one), open(t, two)
			save(t, d, 11, 20, 2, 1000)
			save(t, e, 11, other.to, 3, other.size)
			b, m := full(t, d)
			next, _ := since(t, e, m)
			same(t, "restored", restored(t, nil, b, next), content(t, e))
		})
	}
}

// TestRestoredGoesOn: a restored log, too, can be backed up over the backup that it
// came from.
func TestRestoredGoesOn(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, m := full(t, d)
	dir := filepath.Join(t.TempDir(), "log")
	_, err := backup.Restore(t.Context(), dir, nil, bytes.NewReader(b))
	must(t, err)
	e := open(t, dir)
	save(t, e, 40, 60, 7, 60_000)
	next, n := since(t, e, m)
	if n.Find("00001.wal").Stored > 0 {
		t.Errorf("a file that has not changed is stored: %+v", n.Files)
	}
	same(t, "restored", restored(t, nil, b, next), content(t, e))
}

// TestSlotsOfResealedFile: where a chain shortens a file, no slot of the entries that are
// gone stays, which Dgraph would read.
func TestSlotsOfResealedFile(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	save(t, d, 1, 40, 1, 60_000)
	first, m := full(t, d)
	save(t, d, 10, 41, 2, 60_000)
	must(t, d.Close())
	d = open(t, dir)
	next, _ := since(t, d, m)
	to := filepath.Join(t.TempDir(), "log")
	_, err := backup.Restore(t.Context(), to, nil, readers([][]byte{first, next})...)
	must(t, err)
	content, err := os.ReadFile(filepath.Join(to, "00001.wal"))
	must(t, err)
	slots := content[:entryfile.MaxSlots*entryfile.SlotBytes]
	used := bytes.TrimRight(slots, "\x00")
	if n := (len(used) + entryfile.SlotBytes - 1) / entryfile.SlotBytes; n != 9 {
		t.Errorf("%d slots are in use, want 9", n)
	}
}

// TestCommitBeyondLog: a log may have a commit index beyond its end, as after a power
// cut; the backup has one that raft accepts.
func TestCommitBeyondLog(t *testing.T) {
	d := open(t, t.TempDir())
	save(t, d, 1, 5, 1, 100)
	must(t, d.Save(&raftpb.HardState{Term: new(uint64(1)), Commit: new(uint64(1000))}, nil, nil))
	b, m := full(t, d)
	if m.HardState.Commit != 5 {
		t.Errorf("commit %d in the manifest", m.HardState.Commit)
	}
	if got := restored(t, nil, b); !strings.Contains(got, "hard 1 0 5\n") {
		t.Errorf("restored:\n%s", got)
	}
}

// TestEmptyLogs: logs without entries.
func TestEmptyLogs(t *testing.T) {
	d := open(t, t.TempDir())
	b, _ := full(t, d)
	same(t, "new", restored(t, nil, b), content(t, d))
	must(t, d.Save(nil, nil, oracle.Snapshot(7, 2)))
	b, _ = full(t, d)
	same(t, "only a snapshot", restored(t, nil, b), content(t, d))
	dir := t.TempDir()
	must(t, open(t, dir).Close())
	b, _ = full(t, open(t, dir, readOnly))
	same(t, "closed", restored(t, nil, b), "ids 0 0 0\nhard 0 0 0\nconf [] []\n"+
		"snapshot 0 0 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nentries 1 to 0 behind term 0\n")
}

// TestReadOnly: a log that another owner has open, or that was killed, is backed up
// without touching it.
func TestReadOnly(t *testing.T) {
	dir := t.TempDir()
	owner := open(t, dir, encrypted)
	build(t, owner)
	want := content(t, owner)
	d := open(t, dir, encrypted, readOnly)
	save(t, owner, 45, 70, 7, 60_000)
	b, m := full(t, d)
	same(t, "beside the owner", restored(t, keyed(m), b), want)
	must(t, d.Close())
	d = open(t, dir, encrypted, readOnly)
	next, _ := since(t, d, m)
	same(t, "increment beside the owner", restored(t, keyed(m), b, next), content(t, owner))
}

// TestOwnerChanges: a log that is open for reading only cannot keep its owner from
// removing and clearing what is being copied; it notices.
func TestOwnerChanges(t *testing.T) {
	for name, do := range map[string]func(*mmapwal.DiskStorage){
		"compact": func(d *mmapwal.DiskStorage) {
			must(t, d.CreateSnapshot(44, nil, nil))
			must(t, d.Compact(44))
			must(t, d.Close())
		},
		"clear": func(d *mmapwal.DiskStorage) { clearData(t, d, 40) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			owner := open(t, dir)
			build(t, owner)
			d := open(t, dir, readOnly)
			w := &middle{n: 4, do: func() { do(owner) }}
			_, err := d.Backup(t.Context(), w)
			if !errors.Is(err, mmapwal.ErrChanged) && !errors.Is(err, mmapwal.ErrCorrupt) {
				t.Errorf("error %v", err)
			}
			_, err = backup.Restore(t.Context(), filepath.Join(t.TempDir(), "log"), nil, w)
			if !errors.Is(err, backup.ErrDamaged) {
				t.Errorf("what was written is not refused: %v", err)
			}
		})
	}
}

func TestBackupFails(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	build(t, d)
	mine := errors.New("mine")
	if _, err := d.Backup(t.Context(), writer(func([]byte) (int, error) { return 0, mine })); !errors.Is(err, mine) {
		t.Errorf("writer: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := d.Backup(ctx, &middle{n: 5, do: cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	other := open(t, t.TempDir())
	_, m := full(t, other)
	if _, err := d.BackupSince(t.Context(), io.Discard, m); !errors.Is(err, mmapwal.ErrInvalid) {
		t.Errorf("parent of another log: %v", err)
	}
	w := &middle{n: 5, do: func() { must(t, d.Close()) }}
	if _, err := d.Backup(t.Context(), w); !errors.Is(err, mmapwal.ErrClosed) {
		t.Errorf("closed meanwhile: %v", err)
	}
	if _, err := d.Backup(t.Context(), io.Discard); !errors.Is(err, mmapwal.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	must(t, open(t, dir).Close()) // nothing of it is held
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// TestDamagedLog: of damaged records no backup is made; damaged slots are rebuilt.
func TestDamagedLog(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	save(t, d, 1, 40, 1, 60_000)
	want := content(t, d)
	must(t, d.Close())
	flip(t, filepath.Join(dir, "00001.wal"), 100) // in a slot
	d = open(t, dir, readOnly)
	b, _ := full(t, d)
	must(t, d.Close())
	same(t, "with damaged slots", restored(t, nil, b), want)
	flip(t, filepath.Join(dir, "00001.wal"), entryfile.DataStart+500_000)
	d = open(t, dir, readOnly)
	_, err := d.Backup(t.Context(), io.Discard)
	var where *mmapwal.CorruptError
	if !errors.As(err, &where) || where.File != filepath.Join(dir, "00001.wal") || where.Offset == 0 {
		t.Errorf("error %v", err)
	}
}

func TestDamagedSnapshotFile(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	build(t, d)
	names, err := filepath.Glob(filepath.Join(dir, "*.snap"))
	must(t, err)
	flip(t, names[0], 3000)
	if _, err := d.Backup(t.Context(), io.Discard); !errors.Is(err, mmapwal.ErrCorrupt) {
		t.Errorf("damaged: %v", err)
	}
	must(t, os.Remove(names[0]))
	if _, err := d.Backup(t.Context(), io.Discard); !errors.Is(err, mmapwal.ErrCorrupt) {
		t.Errorf("missing: %v", err)
	}
}

// flip flips a bit of a file.
func flip(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	must(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	must(t, errors.Join(err, f.Close()))
}

// background holds up what the log does in the background.
type background struct {
	mu      sync.Mutex
	waiting []func()
	ended   bool
}

func (b *background) start(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		go f()
		return
	}
	b.waiting = append(b.waiting, f)
}

// run does what is waiting, and what that starts.
func (b *background) run() {
	for {
		b.mu.Lock()
		waiting := b.waiting
		b.waiting = nil
		b.mu.Unlock()
		if len(waiting) == 0 {
			return
		}
		for _, f := range waiting {
			f()
		}
	}
}

func (b *background) end() {
	b.mu.Lock()
	b.ended = true
	b.mu.Unlock()
	b.run()
}

// TestBackground: full files that are not sealed yet are in a backup as they are; the
// file that was made to be the next, and spare ones, are not.
func TestBackground(t *testing.T) {
	for _, edits := range [][]func(*mmapwal.Options){nil, {encrypted}, {func(o *mmapwal.Options) { o.Sync = mmapwal.HardSync }}} {
		var later background
		h := host.OS()
		h.FS, h.Go = noSync{h.FS}, later.start
		d := openOn(t, h, t.TempDir(), edits...)
		t.Cleanup(later.end)
		save(t, d, 1, 8, 1, 110_000)
		later.run()
		first, m := full(t, d)
		if d.Stats().PreparedFiles != 1 || len(m.Files) != 2 || m.Find("00001.wal") == nil {
			t.Errorf("%d files are prepared; the backup has %+v", d.Stats().PreparedFiles, m.Files)
		}
		save(t, d, 9, 30, 1, 110_000)
		save(t, d, 20, 31, 2, 110_000)
		unsealed, _ := full(t, d)
		same(t, "not sealed", restored(t, keyed(m), unsealed), content(t, d))
		second, m := since(t, d, m)
		same(t, "increment, not sealed", restored(t, keyed(m), first, second), content(t, d))
		later.run()
		third, m := since(t, d, m)
		same(t, "increment, sealed", restored(t, keyed(m), first, second, third), content(t, d))
		must(t, d.CreateSnapshot(25, nil, nil))
		must(t, d.Compact(25))
		later.run()
		fourth, m := since(t, d, m)
		same(t, "increment, compacted", restored(t, keyed(m), first, second, third, fourth), content(t, d))
		if d.Stats().SpareFiles == 0 || slices.ContainsFunc(m.Files, func(f archive.File) bool { return strings.HasSuffix(f.Name, entryfile.SpareSuffix) }) {
			t.Errorf("%d spare files; the backup has %+v", d.Stats().SpareFiles, m.Files)
		}
	}
}
