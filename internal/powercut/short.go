package powercut

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
)

// Limits bound what is tried of a short history.
type Limits struct {
	// PerCut is up to how many subsets of what may be lost all are tried; of more,
	// a sample of that size.
	PerCut int
	// Torn is how many images are taken in addition, in which sectors may be torn
	// and hold what they held in between.
	Torn int
	// Depth is of how many distinct images one has its recovery cut, at every
	// step of it. 0: of none.
	Depth int
	// PerStep is for each such step what PerCut is for a cut.
	PerStep int
	// FailedSyncs: each sync of the last operation fails, one after the other, and
	// the log is opened after that without a power cut, and then with one.
	FailedSyncs bool
	// Workers is how many histories run at a time.
	Workers int
}

// All returns all histories of a length. In that of length 0 the log is made.
func All(length int) [][]Op {
	all := [][]Op{nil}
	for range length {
		var longer [][]Op
		for _, ops := range all {
			for _, kind := range Kinds {
				longer = append(longer, append(slices.Clone(ops), Op{Kind: Kind(kind)}))
			}
		}
		all = longer
	}
	return all
}

// Sample returns some of the histories of a length, none twice.
func Sample(length, count int, seed uint64) [][]Op {
	all := All(length)
	r := rand.New(rand.NewPCG(seed, 2))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:min(count, len(all))]
}

// AfterFailedSync returns the histories in which an operation behind an Append has
// a sync that fails, any of its first ones, and another operation follows.
func AfterFailedSync(syncs int) (all [][]Op) {
	for _, failing := range Kinds {
		for n := range syncs {
			for _, last := range Kinds {
				all = append(all, []Op{{Kind: Append}, {Kind: Kind(failing), Fail: n + 1}, {Kind: Kind(last)}})
			}
		}
	}
	return all
}

// Short checks histories, each at all steps of its last operation: the steps
// before are those of a shorter history. The error is a *Failure.
func Short(cfg *Config, limits Limits, histories [][]Op) (*Report, error) {
	s := &shortRun{limits: limits, cfg: cfg, places: make(map[Place]Tally)}
	s.checker = newChecker(cfg, &s.count)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range max(limits.Workers, 1) {
		workers.Go(func() {
			for k := next.Add(1) - 1; k < int64(len(histories)) && !s.stopped.Load(); k = next.Add(1) - 1 {
				s.history(histories[k])
			}
		})
	}
	workers.Wait()
	report := s.count.report()
	report.Places = s.places
	if s.failure != nil {
		return report, s.failure
	}
	return report, nil
}

// shortRun is one call of Short.
type shortRun struct {
	limits  Limits
	cfg     *Config
	count   counter
	checker *checker
	stopped atomic.Bool

	mu      sync.Mutex
	places  map[Place]Tally
	failure *Failure
}

// history checks one, and it with each of its last syncs failing.
func (s *shortRun) history(ops []Op) {
	syncs, ok := s.variant(ops)
	if !ok || !s.limits.FailedSyncs || len(ops) == 0 || slices.ContainsFunc(ops, func(op Op) bool { return op.Fail > 0 }) {
		return
	}
	for n := range syncs {
		again := slices.Clone(ops)
		again[len(ops)-1].Fail = n + 1
		if _, ok := s.variant(again); !ok {
			return
		}
	}
}

// variant checks a history, and returns how many syncs its last operation has.
// It is false if there is no such history, or it failed.
func (s *shortRun) variant(ops []Op) (syncs int, ok bool) {
	h := newHistory(s.cfg, shortData, &s.count)
	c := &cutter{run: s, h: h, ops: ops, tallies: make(map[string]Tally)}
	reason, failed := caught(func() { ok = c.do() })
	if failed {
		s.fail(h.failure(ops, reason))
		return 0, false
	}
	h.end()
	s.add(c)
	return c.syncs, ok
}

func (s *shortRun) fail(f *Failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		s.failure = f
	}
	s.stopped.Store(true)
}

func (s *shortRun) add(c *cutter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := "create"
	if n := len(c.ops); n > 0 {
		name = c.ops[n-1].Kind.String()
		if c.ops[n-1].Fail > 0 {
			name += ", sync fails"
		}
	}
	for step, t := range c.tallies {
		sum := s.places[Place{name, step}]
		sum.Cuts, sum.Images, sum.Distinct = sum.Cuts+t.Cuts, sum.Images+t.Images, sum.Distinct+t.Distinct
		s.places[Place{name, step}] = sum
	}
}

// cutter cuts the last operation of a history.
type cutter struct {
	run     *shortRun
	h       *history
	ops     []Op
	step    int
	syncs   int
	fails   int  // the sync that does; 0: none
	cutting bool // what comes is not that of a shorter history, or of one without the failure
	found   finding
	tallies map[string]Tally
}

// do runs the history. It is false if an operation of it does nothing, so that
// it equals a shorter one.
func (c *cutter) do() bool {
	if len(c.ops) == 0 {
		c.begin()
	}
	c.h.mustBegin()
	for k, op := range c.ops {
		if k == len(c.ops)-1 {
			c.fails = op.Fail
			c.begin()
		}
		if !c.h.do(op) {
			return false
		}
	}
	c.promised()
	c.found.raise()
	c.run.count.histories.Add(1)
	for _, op := range c.ops {
		if op.Fail > 0 {
			c.run.count.failedSyncs.Add(1)
		} else if op.Kind == Kill {
			c.run.count.kills.Add(1)
		}
	}
	return true
}

// begin begins to cut.
func (c *cutter) begin() {
	c.cutting = c.fails == 0
	c.h.promised = c.promised
	c.h.disk.Watch(c.watch)
}

// watch cuts at a step of the disk. Those in front of a failing sync are those
// of the history in which it does not fail.
func (c *cutter) watch(s simdisk.Step) {
	c.step++
	if isSync(s.Op) {
		c.syncs++
	}
	if c.cutting {
		c.cut(string(s.Op), s.Changed, s.Remains)
	}
	if c.syncs == c.fails { // it is this one
		c.cutting = true
	}
}

// promised cuts behind a step with which something was promised.
func (c *cutter) promised() {
	if c.cutting {
		c.cut("return", true, c.h.disk.Remains)
	}
}

func (c *cutter) cut(step string, changed bool, remains func() *simdisk.Remains) {
	c.run.count.cuts.Add(1)
	t := c.tallies[step]
	t.Cuts++
	if changed {
		c.found.run(func() { c.images(step, remains(), &t) })
	}
	c.tallies[step] = t
}

// images checks the images of a cut.
func (c *cutter) images(step string, remains *simdisk.Remains, t *Tally) {
	limits := &c.run.limits
	r := rand.New(rand.NewPCG(uint64(c.step), uint64(c.h.pos)))
	units := remains.Units()
	sum := c.h.want.sum()
	check := func(take func() *simdisk.FS) {
		t.Images++
		image := take()
		print := image.Fingerprint()
		if !c.run.checker.isNew(print, sum) {
			return
		}
		t.Distinct++
		reason, failed := caught(func() {
			c.run.checker.usable(image, c.h.want, 0)
			if limits.Depth > 0 && print%uint64(limits.Depth) == 0 {
				c.run.checker.cutRecovery(take(), c.h.want, rand.New(rand.NewPCG(print, 4)), limits.PerStep)
			}
		})
		if failed {
			fail("cut at step %d of the last operation, in place of %s: %s\nof the units %v", c.step, step, reason, units)
		}
	}
	subsets(len(units), limits.PerCut, r, func(kept func(k int) bool) {
		check(func() *simdisk.FS { return remains.Image(func(k int) simdisk.Fate { return whole(units[k], kept(k)) }) })
	})
	if len(units) == 0 {
		return
	}
	for range limits.Torn {
		seed := r.Uint64()
		check(func() *simdisk.FS { return remains.Random(rand.New(rand.NewPCG(seed, 3))) })
	}
}

// whole is the fate of a unit that is kept as it is, or lost.
func whole(u simdisk.Unit, kept bool) simdisk.Fate {
	if kept {
		return simdisk.Fate{State: u.States}
	}
	return simdisk.Fate{}
}

// subsets calls try with all subsets of n units; with limit of them, chosen by r,
// if there are more.
func subsets(n, limit int, r *rand.Rand, try func(kept func(k int) bool)) {
	if n < 62 && 1<<n <= limit {
		for mask := range 1 << n {
			try(func(k int) bool { return mask>>k&1 == 1 })
		}
		return
	}
	try(func(int) bool { return false })
	try(func(int) bool { return true })
	stride := n/(limit+64) + 1 // of very many units, as a large ciphertext has, some
	for alone := r.IntN(stride); alone < n; alone += stride {
		try(func(k int) bool { return k == alone })
		try(func(k int) bool { return k != alone })
	}
	chosen := make([]bool, n)
	for range max(limit-2-2*n, 0) {
		for k := range chosen {
			chosen[k] = r.IntN(2) == 0
		}
		try(func(k int) bool { return chosen[k] })
	}
}
