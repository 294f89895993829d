package host_test

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/seed-2fef92ad/raftwal/internal/host"
)

// testClock is an After whose times are over when the test says so.
type testClock struct{ waiting []func() }

func (c *testClock) after(_ time.Duration, f func()) { c.waiting = append(c.waiting, f) }

// TestTimer: one time runs at once, each is over once, and none after Stop.
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
	timer.Stop()
	c.waiting[1]() // it is over later
	timer.Start(time.Second)
	if done != 1 || len(c.waiting) != 2 {
		t.Errorf("after Stop: done %d times, %d times were begun", done, len(c.waiting))
	}
}

// TestStoppedTimerIsNotKept by a time that still runs.
func TestStoppedTimerIsNotKept(t *testing.T) {
	var c testClock
	p := func() weak.Pointer[host.Timer] {
		timer := host.NewTimer(host.Host{After: c.after}, func() {})
		timer.Start(time.Hour)
		timer.Stop()
		return weak.Make(timer)
	}()
	runtime.GC()
	if p.Value() != nil {
		t.Error("it is")
	}
	c.waiting[0]()
}
