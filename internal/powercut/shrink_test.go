package powercut_test

import (
	"slices"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/powercut"
)

func parse(t *testing.T, s string) []powercut.Op {
	t.Helper()
	ops, err := powercut.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return ops
}

// TestShrink plants a failure that needs three operations in order, one of them
// with its cut, and looks for it in long histories.
func TestShrink(t *testing.T) {
	planted := parse(t, "r,h!2,a@3")
	fails := func(ops []powercut.Op) bool {
		left := planted
		for _, op := range ops {
			if op.Seed = 0; len(left) > 0 && op == left[0] {
				left = left[1:]
			}
		}
		return len(left) == 0
	}
	for seed := range uint64(20) {
		ops := powercut.RandomHistory(seed)
		for k, op := range planted {
			op.Seed = seed + 1
			ops = slices.Insert(ops, min((k+1)*len(ops)/4+k, len(ops)), op)
		}
		if !fails(ops) {
			t.Fatal("the planted failure is not there")
		}
		got := powercut.Shrink(ops, fails, time.Now().Add(10*time.Second))
		if !slices.Equal(got, planted) {
			t.Errorf("%d operations shrink to %s, want %s", len(ops), powercut.Format(got), powercut.Format(planted))
		}
	}
}

func TestShrinkEndsInTime(t *testing.T) {
	ops := powercut.RandomHistory(1)
	tries := 0
	got := powercut.Shrink(ops, func([]powercut.Op) bool { tries++; return true }, time.Now())
	if !slices.Equal(got, ops) || tries > 0 {
		t.Errorf("%d tries after the time was over", tries)
	}
}

func TestParse(t *testing.T) {
	for seed := range uint64(50) {
		ops := powercut.RandomHistory(seed)
		if got := parse(t, powercut.Format(ops)); !slices.Equal(got, ops) {
			t.Fatalf("%v becomes %v", ops, got)
		}
	}
	for _, bad := range []string{"", "q", "a,", "a!", "a1@x", "1"} {
		if ops, err := powercut.Parse(bad); err == nil {
			t.Errorf("%q is %v", bad, ops)
		}
	}
}

// TestRunsAgain: the same history gives the same images.
func TestRunsAgain(t *testing.T) {
	cfg := &powercut.Config{Retain: 2}
	first, err := powercut.Long(cfg, powercut.RandomHistory(3), 4)
	if err != nil {
		t.Fatal(err)
	}
	again, err := powercut.Long(cfg, parse(t, powercut.Format(powercut.RandomHistory(3))), 4)
	if err != nil {
		t.Fatal(err)
	}
	if first.String() != again.String() || first.Images == 0 {
		t.Errorf("first %v, then %v", first, again)
	}
}
