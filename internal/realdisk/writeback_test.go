package realdisk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"golang.org/x/sys/unix"
)

// fsShutdown stops a file system at once, as a power cut does, with the argument
// noLogFlush: _IOR('X', 125, u32). ext4 and xfs know it.
const (
	fsShutdown = 0x8004587d
	noLogFlush = 2
)

// failing is a log on a device that cannot write all.
type failing struct {
	*filler
	mnt, image string
	op         oracle.Op // the Save that failed
	heal       func()
	powerOff   func() string // returns the image as the device holds it
}

// The ways in which a device fails.
const (
	fullPool = "full pool"        // for blocks that were never written: the image lies on a full tmpfs
	fullHole = "full sparse pool" // for all blocks that hold zeros: msync fails, else a new file does
	oneWrite = "one write"        // once, and then never again: what the next sync says is no news
)

type failingCase struct {
	fs, how string
	saves   int // before the device begins to fail
	nth     int // write that fails
	data    func(i, term uint64) []byte
}

// newFailing saves until the device fails.
func newFailing(t *testing.T, c failingCase) *failing {
	t.Helper()
	f := &failing{}
	var fail func()
	if c.how == oneWrite {
		fail = f.onRecorder(t, c)
	} else {
		fail = f.onPool(t, c)
	}
	f.filler = newFiller(t, f.mnt+"/log", c.data)
	f.save(t, c.saves)
	fail()
	made, err := f.untilError(70)
	if err == nil && c.how == oneWrite {
		t.Log("the file system could do without the write that failed") // btrfs has a copy of its trees
		must(t, f.d.Close())
		return f
	}
	f.op = f.next()
	refused := errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EIO) || errors.Is(err, mmapwal.ErrNoSpace)
	if refused && !errors.Is(err, mmapwal.ErrPoisoned) {
		// The Save needed a new file, and the failure met that, around the page cache; or it met
		// what is done in the background, or the file system's own blocks, and the file system
		// takes no more writes, or, xfs, no calls. The Save has changed nothing.
		t.Logf("after %d calls: %v", c.saves+made, err)
		_ = f.d.Close()
		return f
	}
	if !errors.Is(err, mmapwal.ErrPoisoned) {
		t.Fatalf("Save %d on a failing device: %v", made, err)
	}
	t.Logf("after %d calls: %v; fsync of that file then says: %s", c.saves+made, err, fsyncTail(f.mnt+"/log"))
	f.checkPoisoned(t, err)
	return f
}

// onPool puts the image on a tmpfs, which runs full when fail is called, while
// the file system on the device believes it has room.
func (f *failing) onPool(t *testing.T, c failingCase) (fail func()) {
	t.Helper()
	pool := memory(t, imageSizes[c.fs]+16<<20)
	f.image = filepath.Join(pool, "image")
	makeImage(t, c.fs, f.image, imageSizes[c.fs])
	f.mnt = mountedIn(t, c.fs, f.image, onePage)
	f.heal = func() {
		must(t, unix.Mount("tmpfs", pool, "tmpfs", unix.MS_REMOUNT, fmt.Sprint("size=", 1<<30)))
	}
	f.powerOff = func() string { return f.shutDown(t) }
	return func() {
		if c.how == fullHole {
			must(t, f.dig())
		}
		fill(t, pool, 0)
	}
}

// onRecorder puts the image on a disk of which one write fails when fail was called.
func (f *failing) onRecorder(t *testing.T, c failingCase) (fail func()) {
	t.Helper()
	dir := memory(t, 1<<30)
	f.image = filepath.Join(dir, "image")
	makeImage(t, c.fs, f.image, imageSizes[c.fs])
	r, file := newRecorder(t, f.image)
	f.mnt = mounted(t, c.fs, file)
	f.heal = func() {}
	f.powerOff = func() string {
		must(t, r.copyTo(f.image+".copy"))
		return f.image + ".copy"
	}
	return func() { r.failWrite(c.nth) }
}

// checkPoisoned: every later write says the same, and reads go on.
func (f *failing) checkPoisoned(t *testing.T, first error) {
	t.Helper()
	for what, err := range map[string]error{
		"Save":           f.op.Do(f.d, f.m),
		"Sync":           f.d.Sync(),
		"CreateSnapshot": f.d.CreateSnapshot(f.m.Last(), nil, nil),
		"Close":          f.d.Close(),
	} {
		if err == nil || what != "Close" && err.Error() != first.Error() {
			t.Errorf("%s after the failed one: %v", what, err)
		}
	}
}

// left is what is there afterwards.
func (f *failing) left() promise {
	return f.started(step{"call", f.op}) // with no Op, that changes nothing
}

// TestWriteback: the device fails while the kernel writes back. It tells of that
// once, and calls clean what it could not write.
func TestWriteback(t *testing.T) {
	seed := seedOf(t)
	each(t, func(t *testing.T, fs string) {
		r := rand.New(rand.NewPCG(seed, 6))
		for _, how := range []string{fullPool, fullHole, oneWrite, oneWrite} {
			c := failingCase{fs, how, 1 + r.IntN(30), 1 + r.IntN(3), bulkyData}
			if r.IntN(2) == 0 {
				c.data = entryData
			}
			name := fmt.Sprintf("%s fails after %d calls", how, c.saves)
			t.Run(name+", remounted", func(t *testing.T) { writebackRemounted(t, c) })
			t.Run(name+", reopened", func(t *testing.T) { writebackReopened(t, c) })
		}
	})
}

// writebackRemounted opens the log again after the kernel has forgotten all.
func writebackRemounted(t *testing.T, c failingCase) {
	f := newFailing(t, c)
	unmount(t, f.mnt)
	f.heal()
	must(t, mountImage(c.fs, f.image, f.mnt))
	_, err := checkLog(f.mnt+"/log", f.left(), 0)
	must(t, err)
}

// writebackReopened opens the log again while the page cache still shows what
// the device does not hold. What is then acknowledged has to be on the device.
func writebackReopened(t *testing.T, c failingCase) {
	f := newFailing(t, c)
	f.heal()
	p := f.left()
	d, err := openLog(f.mnt+"/log", 0)
	if err == nil {
		m, err := p.check(d)
		must(t, err)
		again := fillerOf(d, m) // Open has made durable what it found
		again.save(t, 2)
		p = again.promise
	} else {
		t.Logf("the file system does not go on: %v", err)
		if errors.Is(err, mmapwal.ErrCorrupt) {
			t.Errorf("nothing promised is damaged: %v", err)
		}
	}
	image := f.powerOff()
	if d != nil {
		_ = d.Close()
	}
	unmount(t, f.mnt)
	_, err = checkImage(t, c.fs, image, p, 0)
	must(t, err)
}

// shutDown returns the image as the device holds it, without what is only in the
// kernel's memory.
func (f *failing) shutDown(t *testing.T) string {
	t.Helper()
	t.Helper()
	dir, err := os.Open(f.mnt)
	must(t, err)
	defer dir.Close()
	if unix.IoctlSetPointerInt(int(dir.Fd()), fsShutdown, noLogFlush) == nil {
		return f.image
	}
	image, err := os.Open(f.image)
	must(t, err)
	defer image.Close()
	name := f.image + ".copy"
	must(t, copyImage(name, image))
	return name
}

// dig makes holes of the zeros in the image.
func (f *failing) dig() error {
	dir, err := os.Open(f.mnt)
	if err != nil {
		return err
	}
	defer dir.Close()
	image, err := os.OpenFile(f.image, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0); err != nil { // nothing is written meanwhile
		return err
	}
	err = eachRun(image, func(off int64, p []byte) error { return punchZeros(image, off, p) })
	return errors.Join(err, unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0))
}

// punchZeros makes holes of the blocks of p, which lies at off, that hold zeros.
func punchZeros(image *os.File, off int64, p []byte) error {
	const block = 4096
	var zeros [block]byte
	for ; len(p) >= block; off, p = off+block, p[block:] {
		if !bytes.Equal(p[:block], zeros[:]) {
			continue
		}
		if err := unix.Fallocate(int(image.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, block); err != nil {
			return err
		}
	}
	return nil
}

// fsyncTail shows the trap: what a sync says that is tried again.
func fsyncTail(dir string) string {
	names, err := filepath.Glob(dir + "/*.wal*")
	if err != nil || len(names) == 0 {
		return "there is no file to be seen"
	}
	f, err := os.OpenFile(slices.Max(names), os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	return fmt.Sprintf("%v, %v", unix.Fsync(int(f.Fd())), unix.Fsync(int(f.Fd())))
}
