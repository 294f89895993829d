package realdisk

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The ioctls that freeze and thaw a file system: _IOWR('X', 119 and 120, int).
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// TestFrozenCopy copies the image at any moment, while the file system on which
// it lies is frozen. Unlike TestPowerCut it takes nothing but what the kernel
// wrote, through the kernel's own page cache.
func TestFrozenCopy(t *testing.T) {
	seed, copies := seedOf(t), envInt(t, "COPIES", 15)
	each(t, func(t *testing.T, fs string) {
		t.Parallel()
		r := rand.New(rand.NewPCG(seed, 5))
		s := savings{Seed: r.Uint64(), Steps: 60 + 4*copies, Retain: uint64(r.IntN(3) * r.IntN(10))}
		c := newCopier(t, fs, s)
		c.run(t, r, copies)
		c.check(t)
	})
}

// copier takes copies of the image under a saver.
type copier struct {
	savings
	fs    string
	steps []step
	outer *os.File // the directory in which the image lies
	image *os.File
	mnt   string
	dir   string // for the copies

	mu          sync.Mutex // held while a copy is taken: no report is answered
	begun, done int
	copies      []frozen
	err         error
}

// frozen is one copy, and how far the saver was.
type frozen struct {
	name        string
	begun, done int
}

func newCopier(t *testing.T, fs string, s savings) *copier {
	t.Helper()
	c := &copier{savings: s, fs: fs, dir: memory(t, 8<<30)}
	makeImage(t, "ext4", filepath.Join(c.dir, "outer"), 500<<20)
	outer := mounted(t, "ext4", filepath.Join(c.dir, "outer"))
	makeImage(t, fs, outer+"/image", imageSizes[fs])
	var err error
	c.outer, err = os.Open(outer)
	must(t, err)
	c.image, err = os.Open(outer + "/image")
	must(t, err)
	c.mnt = mounted(t, fs, outer+"/image")
	endThawer := startThawer(t, outer)
	t.Cleanup(func() { // before what is mounted there
		_ = c.thaw()
		endThawer()
		_ = c.outer.Close()
		_ = c.image.Close()
	})
	c.Dir = c.mnt + "/log"
	c.steps = c.history()
	return c
}

// startThawer starts a process that outlives this one by a moment. The kernel
// never lets go of a file system that is frozen when all who could thaw it die.
func startThawer(t *testing.T, dir string) (end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Env = append(os.Environ(), roleEnv+"=thawer")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadByte() // it has opened the directory
	must(t, err)
	return func() { _ = in.Close(); _ = cmd.Wait() }
}

// thawer thaws the file system of dir when its parent is gone.
func thawer(dir string) {
	d, err := os.Open(dir)
	fatal(err)
	fmt.Println()
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = unix.IoctlSetInt(int(d.Fd()), fiThaw, 0)
}

// run runs the saver, and takes copies beside it.
func (c *copier) run(t *testing.T, r *rand.Rand, copies int) {
	t.Helper()
	takeAt := r.Perm(len(c.steps))[:copies]
	delays := make(map[int]time.Duration)
	for _, k := range takeAt {
		delays[k] = time.Duration(r.IntN(3000)) * time.Microsecond
	}
	var copying sync.WaitGroup
	runSaver(t, c.savings, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if delay, take := delays[c.begun]; take {
			copying.Go(func() { time.Sleep(delay); c.take() })
		}
		c.begun++
	}, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.done++
	})
	copying.Wait()
	must(t, c.err)
	unmount(t, c.mnt)
}

// take copies the image as it is at one moment.
func (c *copier) take() {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := frozen{filepath.Join(c.dir, fmt.Sprint("copy", len(c.copies))), c.begun, c.done}
	if err := unix.IoctlSetInt(int(c.outer.Fd()), fiFreeze, 0); err != nil {
		c.err = errors.Join(c.err, err)
		return
	}
	err := copyImage(f.name, c.image)
	c.err = errors.Join(c.err, err, c.thaw())
	c.copies = append(c.copies, f)
}

func (c *copier) thaw() error { return unix.IoctlSetInt(int(c.outer.Fd()), fiThaw, 0) }

// check looks at each copy.
func (c *copier) check(t *testing.T) {
	t.Helper()
	promises := promisesOf(settled(c.start()), c.start(), c.steps)
	for _, f := range c.copies {
		p := promises[f.done]
		if f.begun > f.done {
			p = p.started(c.steps[f.done])
		}
		image, err := os.Open(f.name)
		must(t, err)
		sum, err := sumImage(image)
		must(t, errors.Join(err, image.Close()))
		found, err := checkImage(t, c.fs, f.name, p, c.Retain)
		results.add("FrozenCopy "+c.fs, sum, f.done, found)
		if err != nil {
			t.Fatalf("seed %d, copy after %d of %d steps: %v", c.Seed, f.done, len(c.steps), err)
		}
	}
}
