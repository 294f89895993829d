package host_test

import (
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/host"
)

// testClock is an After whose times are over when the test says so.
type testClock struct{ waiting []func() }

func (c *testClock) after(_ time.Duration, f func()) (stop func()) {
	k := len(c.waiting)
	c.waiting = append(c.waiting, f)
	return func() { c.waiting[k] = nil }
}

// TestTimer: one time runs at once, each is over once, and none after Stop, which leaves
// nothing behind.
func TestTimer(t *testing.T) {
	var c testClock
	done := 0
	timer := host.NewTimer(host.Host{After: c.after}, func() { done++ })
	timer.Start(time.Second)
	timer.Start(time.Second)
	if len(c.waiting) != 1 {
		t.Fatalf("%d times run", len(c.waiting))
	}
	c.waiting[0]()
	timer.Start(time.Second)
	if done != 1 || len(c.waiting) != 2 {
		t.Fatalf("done %d times, %d times were begun", done, len(c.waiting))
	}
	late := c.waiting[1]
	timer.Stop()
	if c.waiting[1] != nil {
		t.Error("a time runs on after Stop")
	}
	late() // it was over at the same moment
	timer.Start(time.Second)
	if done != 1 || len(c.waiting) != 2 {
		t.Errorf("after Stop: done %d times, %d times were begun", done, len(c.waiting))
	}
}
