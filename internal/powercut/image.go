package powercut

import (
	"math/rand/v2"
	"sync"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
)

// Seeds of the random numbers of a log that is opened on an image. They differ
// from those of the history, since a file's salt is new in each of its lives.
const (
	seedRecovered = 1 << 32
	seedReopened  = 2 << 32
	seedDepth     = 1 << 40
)

// checker checks images. It may be used concurrently.
type checker struct {
	cfg   *Config
	count *counter
	mu    sync.Mutex
	seen  map[[2]uint64]struct{} // fingerprints of images with expectations
}

func newChecker(cfg *Config, count *counter) *checker {
	return &checker{cfg: cfg, count: count, seen: make(map[[2]uint64]struct{})}
}

// isNew reports whether an image was not seen yet with the expectation of which
// want is the sum.
func (c *checker) isNew(print, want uint64) bool {
	c.count.images.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]uint64{print, want}
	if _, ok := c.seen[key]; ok {
		return false
	}
	c.seen[key] = struct{}{}
	c.count.distinct.Add(1)
	return true
}

// usable checks an image: the log on it opens, is one that was expected, takes a
// Save, closes, and opens again. depth tells how many recoveries were cut before. What the
// recovery begins in the background is done before the Save, or behind it.
func (c *checker) usable(image *simdisk.FS, want expectation, depth uint64) {
	d, b, err := c.cfg.open(image, seedRecovered+depth*seedDepth, image.Fingerprint()%2 == 0)
	if err != nil {
		fail("recovery: %v", err)
	}
	m, err := want.match(d, c.cfg.NoSync)
	if err != nil {
		fail("after recovery %v", err)
	}
	term := small(max(m.Hard[0], m.Term(m.Last())) + 1)
	op := oracle.Op{Hard: [3]uint64{term, 1, m.Hard[2]}, From: m.Last() + 1, Terms: []uint64{term}}
	if err := op.Do(d, m); err != nil {
		fail("save after recovery: %v", err)
	}
	m = op.Done(m)
	b.end()
	if err := d.Close(); err != nil {
		fail("close after recovery: %v", err)
	}
	if d, b, err = c.cfg.open(image, seedReopened+depth*seedDepth, true); err != nil {
		fail("opened again after recovery: %v", err)
	}
	if _, err := exactly(m).match(d, c.cfg.NoSync); err != nil {
		fail("opened again after recovery, %v", err)
	}
	image.CutAt(1) // nothing more is of interest
	b.end()
	_ = d.Close()
	image.Free()
}

// cutRecovery cuts the recovery of an image at every step that changes something
// and checks images of each: all subsets if there are no more than perStep, else
// some, and one in which sectors may be torn. The image is used up.
func (c *checker) cutRecovery(image *simdisk.FS, want expectation, r *rand.Rand, perStep int) {
	step, sum := 0, want.sum()
	found := new(finding)
	image.Watch(func(s simdisk.Step) {
		if step++; !s.Changed {
			return
		}
		remains := s.Remains()
		units := remains.Units()
		check := func(again *simdisk.FS) {
			c.count.inRecovery.Add(1)
			if !c.isNew(again.Fingerprint(), sum) {
				return
			}
			if reason, failed := caught(func() { c.usable(again, want, 1) }); failed {
				fail("recovery cut at its step %d, %s %s: %s\nof the units %v", step, s.Op, s.Name, reason, units)
			}
		}
		found.run(func() {
			subsets(len(units), perStep, r, func(kept func(k int) bool) {
				check(remains.Image(func(k int) simdisk.Fate { return whole(units[k], kept(k)) }))
			})
			if len(units) > 0 {
				check(remains.Random(r))
			}
		})
	})
	d, b, err := c.cfg.open(image, seedRecovered, true)
	found.raise()
	if err != nil {
		fail("recovery: %v", err)
	}
	image.CutAt(1)
	b.end()
	_ = d.Close()
	image.Free()
}

// finding is the first failure that was found at a step of the disk. There the
// engine is in the midst of something, and must not be left by a panic.
type finding struct {
	reason string
	failed bool
}

// run does nothing when a failure was found before.
func (f *finding) run(check func()) {
	if !f.failed {
		f.reason, f.failed = caught(check)
	}
}

// raise fails, back in the history.
func (f *finding) raise() {
	if f.failed {
		fail("%s", f.reason)
	}
}
