package host

import (
	"sync"
	"sync/atomic"
)

// Runner does work in the background when it is woken: one goroutine at a time, and
// none while there is nothing to do. Its methods may be called concurrently.
type Runner struct {
	start func(f func())
	work  func()

	mu      sync.Mutex
	idle    *sync.Cond // broadcast when running ends
	running bool
	again   atomic.Bool // woken since the work that is under way began; running then; changes with mu
}

// NewRunner returns a Runner of work, which is to do all there is to do.
func NewRunner(h Host, work func()) *Runner {
	r := &Runner{start: h.Go, work: work}
	r.idle = sync.NewCond(&r.mu)
	return r
}

// Wake has the work done soon, once more if it is under way. It does not wait.
func (r *Runner) Wake() {
	if r.again.Load() {
		return
	}
	r.mu.Lock()
	started := r.running
	r.running = true
	r.again.Store(true)
	r.mu.Unlock()
	if !started {
		r.start(r.run)
	}
}

// Wait returns when nothing is being done any more.
func (r *Runner) Wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.running {
		r.idle.Wait()
	}
}

func (r *Runner) run() {
	for r.begin() {
		r.work()
	}
}

// begin reports whether there is work; if not, it has ended the run.
func (r *Runner) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.again.Load() {
		r.running = false
		r.idle.Broadcast()
		return false
	}
	r.again.Store(false)
	return true
}
