package realdisk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"golang.org/x/sys/unix"
)

// bulkyData fills a disk fast.
func bulkyData(i, term uint64) []byte { return oracle.Data(i, term, 20_000) }

// filler is a log that is saved to until that fails.
type filler struct {
	d *mmapwal.DiskStorage
	promise
}

// fillerOf saves to d, which may be nil, and which holds m.
func fillerOf(d *mmapwal.DiskStorage, m *oracle.Model) *filler { return &filler{d, settled(m)} }

func newFiller(t *testing.T, dir string, data func(i, term uint64) []byte) *filler {
	t.Helper()
	d, err := openLog(dir, 0)
	must(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return fillerOf(d, &oracle.Model{Data: data})
}

// next is the Save that comes next: all is committed, so that all can be compacted.
func (f *filler) next() oracle.Op {
	last, term := f.m.Last(), f.m.Last()/500+1
	return oracle.Op{Hard: [3]uint64{term, 1, last + 4}, From: last + 1, Terms: []uint64{term, term, term, term}}
}

// do makes a call.
func (f *filler) do(op oracle.Op) error {
	if err := op.Do(f.d, f.m); err != nil {
		return err
	}
	f.acknowledge(op)
	return nil
}

func (f *filler) acknowledge(op oracle.Op) { f.promise = f.done(step{"call", op}) }

// save makes n calls.
func (f *filler) save(t *testing.T, n int) {
	t.Helper()
	for range n {
		must(t, f.do(f.next()))
	}
}

// untilError saves until that fails, but not more often than most.
func (f *filler) untilError(most int) (saves int, err error) {
	for ; saves < most && err == nil; saves++ {
		err = f.do(f.next())
	}
	return saves, err
}

// untilFull saves until the disk is full, and sees that nothing has changed.
func (f *filler) untilFull(t *testing.T) {
	t.Helper()
	saves, err := f.untilError(10_000)
	if !errors.Is(err, mmapwal.ErrNoSpace) || errors.Is(err, mmapwal.ErrPoisoned) {
		t.Fatalf("on a full disk, after %d calls of Save: %v", saves, err)
	}
	if err := f.do(f.next()); !errors.Is(err, mmapwal.ErrNoSpace) {
		t.Fatalf("the same Save again: %v", err)
	}
	must(t, f.unchanged())
	must(t, f.d.Stats().Poisoned)
	t.Logf("full after %d calls, %d entries: %v", saves, f.m.Last(), err)
}

// unchanged: the log holds what was acknowledged and nothing else.
func (f *filler) unchanged() error {
	_, err := settled(f.m).check(f.d)
	return err
}

// untilRoom saves on where there was no room. Files are removed in the
// background, and file systems need a moment to find what was freed.
func (f *filler) untilRoom(t *testing.T) {
	t.Helper()
	for range 60 { // more than one file
		err := f.do(f.next())
		for wait := time.Millisecond; errors.Is(err, mmapwal.ErrNoSpace) && wait < 5*time.Second; wait *= 2 {
			time.Sleep(wait)
			err = f.do(f.next())
		}
		must(t, err)
	}
}

// fill takes all space of a file system but room bytes.
func fill(t *testing.T, dir string, room int64) (ballast string) {
	t.Helper()
	window := filepath.Join(dir, "window")
	if room > 0 {
		must(t, allocate(window, room))
	}
	ballast = filepath.Join(dir, "ballast")
	for size := int64(1 << 30); size >= 4096; size /= 2 {
		for allocate(ballast, size) == nil {
		}
	}
	_ = os.Remove(window)
	return ballast
}

// allocate makes a file longer by size bytes, with blocks.
func allocate(name string, size int64) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return unix.Fallocate(int(f.Fd()), 0, info.Size(), size)
}

// TestDiskFull: on a full disk Save says so and changes nothing, and goes on
// when there is room: when something else is deleted, and when it compacts.
func TestDiskFull(t *testing.T) {
	each(t, func(t *testing.T, fs string) {
		image := filepath.Join(memory(t, 2<<30), "image")
		makeImage(t, fs, image, imageSizes[fs])
		mnt := mounted(t, fs, image)
		f := newFiller(t, mnt+"/log", bulkyData)
		f.save(t, 3)

		ballast := fill(t, mnt, 10<<20)
		f.untilFull(t)
		must(t, os.Remove(ballast))
		f.untilRoom(t)

		fill(t, mnt, 10<<20)
		f.untilFull(t)
		if err := f.do(oracle.Op{Create: f.m.Last()}); err != nil {
			t.Fatalf("CreateSnapshot on a full disk: %v", err)
		}
		f.untilRoom(t)

		must(t, f.d.Close())
		unmount(t, mnt)
		must(t, mountImage(fs, image, mnt))
		_, err := checkLog(mnt+"/log", settled(f.m), 0)
		must(t, err)
	})
}
