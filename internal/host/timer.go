package host

import (
	"sync"
	"time"
)

// Timer runs a function in the background when a time is over. Its methods may be called
// concurrently, but not by the function.
type Timer struct {
	after func(d time.Duration, f func()) (stop func())
	work  func()

	mu      sync.Mutex // held while work runs, which therefore must not wait
	set     bool
	cancel  func() // of what after began; nil: nothing was
	stopped bool
}

// NewTimer returns a Timer of work, which must not wait for anything.
func NewTimer(h Host, work func()) *Timer { return &Timer{after: h.After, work: work} }

// Start has the work done when d is over, once; it does nothing if a time is running, or
// after Stop.
func (t *Timer) Start(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.set || t.stopped {
		return
	}
	t.set = true
	t.cancel = t.after(d, t.over)
}

func (t *Timer) over() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return
	}
	t.set = false
	t.work()
}

// Stop ends the Timer for good: when it returns the work is not being done, and will not
// be; and nothing outside holds the Timer any more.
func (t *Timer) Stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.cancel != nil {
		t.cancel()
		t.cancel = nil
	}
}
