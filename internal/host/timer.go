package host

import (
	"sync"
	"sync/atomic"
	"time"
)

// Timer runs a function in the background when a time is over. Its methods may be called
// concurrently, but not by the function.
type Timer struct {
	after func(d time.Duration, f func())
	work  func()

	mu      sync.Mutex // held while work runs, which therefore must not wait
	bell    *bell      // of the time that runs; nil: none does
	stopped bool
}

// bell is what rings when a time is over. It is all that is kept of a Timer that was
// stopped, until then.
type bell struct{ timer atomic.Pointer[Timer] }

func (b *bell) ring() {
	if t := b.timer.Load(); t != nil {
		t.over()
	}
}

// NewTimer returns a Timer of work, which must not wait for anything.
func NewTimer(h Host, work func()) *Timer { return &Timer{after: h.After, work: work} }

// Start has the work done when d is over, once; it does nothing if a time is running, or
// after Stop.
func (t *Timer) Start(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bell != nil || t.stopped {
		return
	}
	t.bell = new(bell)
	t.bell.timer.Store(t)
	t.after(d, t.bell.ring)
}

func (t *Timer) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.bell = nil
	t.work()
}

// Stop ends the Timer for good: when it returns the work is not being done, and will not
// be; and a time that still runs does not hold the Timer any more.
func (t *Timer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.bell != nil {
		t.bell.timer.Store(nil)
	}
}
