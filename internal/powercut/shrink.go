package powercut

import (
	"slices"
	"time"
)

// Shrink looks for a shorter history that fails, too, until the given time: it
// leaves operations out, first many at a time, then one by one, and then tries
// simpler ones. What it returns fails.
func Shrink(ops []Op, fails func(ops []Op) bool, until time.Time) []Op {
	try := func(candidate []Op) bool {
		if time.Now().After(until) || !fails(candidate) {
			return false
		}
		ops = candidate
		return true
	}
	for size := max(len(ops)/2, 1); ; {
		shorter := false
		for at := 0; at < len(ops); {
			if try(slices.Delete(slices.Clone(ops), at, min(at+size, len(ops)))) {
				shorter = true
			} else {
				at += size
			}
		}
		if size == 1 && !shorter {
			break
		}
		size = max(size/2, 1)
	}
	for k := range ops {
		for _, simpler := range ops[k].simpler() {
			candidate := slices.Clone(ops)
			candidate[k] = simpler
			if try(candidate) {
				break
			}
		}
	}
	return ops
}

// simpler returns operations to try in place of o, the simplest first.
func (o Op) simpler() (all []Op) {
	plain := o
	plain.Seed, plain.Fail, plain.Cut, plain.AtSync = 0, 0, 0, false
	fixed := o
	fixed.Seed = 0
	whole := plain
	whole.Seed = o.Seed
	for _, op := range []Op{plain, fixed, whole} {
		if op != o && !slices.Contains(all, op) {
			all = append(all, op)
		}
	}
	return all
}
