package powercut

import (
	"math/rand/v2"

	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
)

// RandomHistory makes up a long history: runs of the log, each ended by a power
// cut, by a failing sync, or by the death of the process.
func RandomHistory(seed uint64) []Op {
	r := rand.New(rand.NewPCG(seed, 7))
	var ops []Op
	for range 2 + r.IntN(4) {
		for range r.IntN(1 << r.IntN(7)) {
			ops = append(ops, randomOp(r))
		}
		op := randomOp(r)
		if r.IntN(3) == 0 {
			op.Kind = [...]Kind{Close, Kill}[r.IntN(2)]
		}
		op.end(r)
		ops = append(ops, op)
		if op.Cut > 0 && r.IntN(3) == 0 { // a recovery that fails
			op = Op{Kind: Kill, Seed: 1 + r.Uint64N(1e9), Fail: 1 + r.IntN(8)}
			ops = append(ops, op)
		}
	}
	return ops
}

func randomOp(r *rand.Rand) Op {
	const kinds = "aaaaaaaaaaaaooooohssscctttiruuxy"
	return Op{Kind: Kind(kinds[r.IntN(len(kinds))]), Seed: 1 + r.Uint64N(1e9)}
}

// end makes o the last operation of a run.
func (o *Op) end(r *rand.Rand) {
	steps := 4 // of two to their power
	if o.Kind == Close || o.Kind == Kill {
		steps = 10
	}
	switch r.IntN(16) {
	case 0, 1, 2:
		o.Fail = 1 + r.IntN(1+r.IntN(12))
	case 3:
		o.Kind = Kill
	case 4, 5, 6, 7, 8:
		o.Cut, o.AtSync = 1+r.IntN(16), true
	default:
		o.Cut = 1 + r.IntN(1<<r.IntN(steps+1))
	}
}

// Long runs a history, and takes perCut images at each of its power cuts; it goes
// on with one more. The error is a *Failure, with the operations that were done.
func Long(cfg *Config, ops []Op, perCut int) (*Report, error) {
	l := &longRun{perCut: perCut}
	l.checker = newChecker(cfg, &l.count)
	l.h = newHistory(cfg, longData, &l.count)
	l.count.histories.Add(1)
	done := 0
	reason, failed := caught(func() {
		for _, op := range ops {
			done++
			l.do(op)
		}
	})
	if failed {
		return l.count.report(), l.h.failure(ops[:done], reason)
	}
	l.h.end()
	return l.count.report(), nil
}

// longRun is one call of Long.
type longRun struct {
	perCut  int
	count   counter
	checker *checker
	h       *history
}

func (l *longRun) do(op Op) {
	if l.h.d == nil && op.Kind != Kill { // else the recovery of the power cut is the operation
		l.h.mustBegin()
	}
	if !l.h.do(op) {
		return
	}
	if op.Fail > 0 {
		l.count.failedSyncs.Add(1)
	} else if op.Kind == Kill {
		l.count.kills.Add(1)
	}
	if op.Cut > 0 {
		l.cut(op)
	}
}

// cut is a power cut, if the operation has not met it already.
func (l *longRun) cut(op Op) {
	l.h.tell("power cut")
	l.count.cuts.Add(1)
	l.h.abandon()
	remains := l.h.disk.Remains()
	r := rand.New(rand.NewPCG(op.Seed, uint64(op.Cut)))
	for range l.perCut {
		image, want, depth := l.image(remains, r)
		if l.checker.isNew(image.Fingerprint(), want.sum()) {
			l.checker.usable(image, want, depth)
		}
	}
	image, want, _ := l.image(remains, r)
	l.h.disk.Free()
	l.h.disk, l.h.want = image, want
}

// image takes an image, and now and then cuts its recovery, and takes one of that.
func (l *longRun) image(remains *simdisk.Remains, r *rand.Rand) (image *simdisk.FS, want expectation, depth uint64) {
	image, want = remains.Random(r), l.h.want
	for r.IntN(3) == 0 {
		depth++
		image.CutAt(1 + r.IntN(1<<r.IntN(11)))
		want = l.recover(image, want, depth)
		cut := image
		image = cut.Crash(r)
		cut.Free()
	}
	return image, want, depth
}

// recover opens the log on an image whose power goes at some step, and returns
// what is expected then.
func (l *longRun) recover(image *simdisk.FS, want expectation, depth uint64) expectation {
	d, b, err := l.checker.cfg.open(image, seedRecovered+(depth+1000)*seedDepth, depth%2 == 0)
	if err != nil {
		l.count.inRecovery.Add(1)
		l.h.stopped(err)
		return want
	}
	m, err := want.match(d, l.checker.cfg.NoSync)
	if err != nil {
		fail("after recovery %v", err)
	}
	b.end()
	_ = d.Close()
	return exactly(m)
}
