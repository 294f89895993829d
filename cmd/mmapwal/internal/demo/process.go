package demo

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
)

// process is one life of a node, as the parent sees it.
type process struct {
	id      uint64
	cmd     *exec.Cmd
	queue   chan request
	quit    <-chan struct{} // nobody takes events any more
	done    chan struct{}   // closed when the process is gone and all was heard
	running sync.WaitGroup
	last    tail // of what it wrote on its standard error
}

// event is what the parent hears from a process: a report, or that it is gone.
type event struct {
	process *process
	report  *report
	exit    error // why it is gone, if report is nil; nil if it stopped as told
}

// startProcess starts a node. It can be told things at once.
func startProcess(command []string, s *start, events chan<- event, quit <-chan struct{}) (*process, error) {
	p := &process{
		id:    s.ID,
		cmd:   exec.Command(command[0], command[1:]...),
		queue: make(chan request, queueLength),
		quit:  quit,
		done:  make(chan struct{}),
	}
	p.cmd.Stderr = &p.last
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start node %d: %w", s.ID, err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start node %d: %w", s.ID, err)
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start node %d: %w", s.ID, err)
	}
	p.queue <- request{Start: s}
	p.running.Go(func() { p.talk(in) })
	p.running.Go(func() { p.hear(out, events) })
	return p, nil
}

// talk passes on what is queued, as long as the process takes it.
func (p *process) talk(in io.Writer) {
	out := gob.NewEncoder(in)
	for {
		select {
		case <-p.done:
			return
		case r := <-p.queue:
			if out.Encode(r) != nil {
				return // it is gone, as hear will find
			}
		}
	}
}

// hear passes on the reports, and that the process is gone when it is.
func (p *process) hear(out io.Reader, events chan<- event) {
	in := gob.NewDecoder(out)
	var err error
	for err == nil {
		r := &report{}
		if err = in.Decode(r); err == nil {
			p.post(events, event{process: p, report: r})
		}
	}
	if !errors.Is(err, io.EOF) {
		_ = p.kill() // killed amid a report, most likely; else it talks nonsense
	}
	err = p.cmd.Wait()
	close(p.done)
	p.post(events, event{process: p, exit: err})
}

func (p *process) post(events chan<- event, e event) {
	select {
	case events <- e:
	case <-p.quit:
	}
}

// tell queues a request that must arrive.
func (p *process) tell(r request) error {
	select {
	case p.queue <- r:
		return nil
	default:
		return fmt.Errorf("node %d takes no requests", p.id)
	}
}

// propose queues writes, unless the node is far behind; they are sent again then.
func (p *process) propose(writes [][]byte) {
	if len(p.queue) < queueLength/2 {
		p.queue <- request{Writes: writes} // the parent alone fills the queue
	}
}

// kill sends SIGKILL. That the process is gone is heard later.
func (p *process) kill() error {
	return p.cmd.Process.Kill()
}

// died describes the death of a process that nobody killed.
func (p *process) died(err error) error {
	if err == nil {
		err = errors.New("it was not told to stop")
	}
	if said := p.last.String(); said != "" {
		return fmt.Errorf("node %d exited: %w; it said:\n%s", p.id, err, said)
	}
	return fmt.Errorf("node %d exited: %w", p.id, err)
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	t.kept = t.kept[max(0, len(t.kept)-most):]
	return len(b), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
