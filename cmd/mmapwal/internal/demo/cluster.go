package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// cluster is the three nodes, as the parent sees them.
type cluster struct {
	command []string
	session uint64
	members []*member // node i+1 is at i
	places  []uint64  // places[i] is the index at which write i+1 was applied, as told first
	events  chan event
	quit    chan struct{}
}

// member is one node through all its lives.
type member struct {
	id      uint64
	dir     string
	process *process // nil if there is none
	killed  bool     // on purpose
	addr    string   // "" until it is up
	status  status
	applied uint64 // the last write that it told to have applied, in this life
}

// up says whether the node has recovered and runs.
func (m *member) up() bool { return m.process != nil && !m.killed && m.addr != "" }

func newCluster(command []string, session uint64, dirs []string) *cluster {
	c := &cluster{
		command: command,
		session: session,
		events:  make(chan event, queueLength),
		quit:    make(chan struct{}),
	}
	for i, dir := range dirs {
		c.members = append(c.members, &member{id: uint64(i + 1), dir: dir})
	}
	return c
}

// start begins a new life of a node.
func (c *cluster) start(m *member) error {
	p, err := startProcess(c.command, &start{ID: m.id, Dir: m.dir, Session: c.session}, c.events, c.quit)
	if err != nil {
		return err
	}
	*m = member{id: m.id, dir: m.dir, process: p}
	return nil
}

// startAll starts all nodes.
func (c *cluster) startAll() error {
	for _, m := range c.members {
		if err := c.start(m); err != nil {
			return err
		}
	}
	return nil
}

// kill ends a node the hard way. It counts as gone once its end was heard.
func (c *cluster) kill(m *member) error {
	m.killed = true
	if err := m.process.kill(); err != nil {
		return fmt.Errorf("kill node %d: %w", m.id, err)
	}
	return nil
}

// handle takes in what was heard, and returns the hello that was in it, if any.
// The error is that of a node which died of itself or which contradicts another.
func (c *cluster) handle(e event) (*hello, error) {
	m := c.members[e.process.id-1]
	if m.process != e.process {
		return nil, nil // of an earlier life
	}
	if e.report == nil {
		m.process, m.addr = nil, ""
		if !m.killed {
			return nil, e.process.died(e.exit)
		}
		return nil, nil
	}
	m.status = e.report.Status
	if err := c.place(m, e.report.Applied); err != nil {
		return nil, err
	}
	if h := e.report.Hello; h != nil && !m.killed {
		m.addr = h.Addr
		return h, c.introduce()
	}
	return nil, nil
}

// place takes in at which indexes a node applied its next writes.
func (c *cluster) place(m *member, indexes []uint64) error {
	for _, at := range indexes {
		m.applied++
		if m.applied > uint64(len(c.places)) {
			c.places = append(c.places, at)
		}
		if told := c.places[m.applied-1]; told != at {
			return fmt.Errorf("node %d applied write %d at index %d, another node at %d", m.id, m.applied, at, told)
		}
	}
	return nil
}

// introduce tells the nodes that are up where all of these listen.
func (c *cluster) introduce() error {
	addrs := make(map[uint64]string)
	for _, m := range c.members {
		if m.up() {
			addrs[m.id] = m.addr
		}
	}
	for _, m := range c.members {
		if !m.up() {
			continue
		}
		if err := m.process.tell(request{Peers: addrs}); err != nil {
			return err
		}
	}
	return nil
}

// leader returns the node that leads in the newest term, or nil.
func (c *cluster) leader() *member {
	var leader *member
	for _, m := range c.members {
		if m.up() && m.status.Leading && (leader == nil || m.status.Term > leader.status.Term) {
			leader = m
		}
	}
	return leader
}

// complete says whether all nodes are up and there is a leader.
func (c *cluster) complete() bool {
	for _, m := range c.members {
		if !m.up() {
			return false
		}
	}
	return c.leader() != nil
}

// settled says whether all nodes have applied the first writes, and all else
// that the leader has.
func (c *cluster) settled(writes uint64) bool {
	if !c.complete() {
		return false
	}
	last := c.leader().status.Last
	for _, m := range c.members {
		if m.applied < writes || m.status.Applied < last {
			return false
		}
	}
	return true
}

// stop tells all nodes to close their logs, and waits until they have.
func (c *cluster) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTimeout, errors.New("the nodes do not stop"))
	defer cancel()
	for _, m := range c.members {
		if err := m.process.tell(request{Stop: true}); err != nil {
			return err
		}
	}
	for left := len(c.members); left > 0; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-c.events:
			if e.report != nil {
				continue
			}
			if e.exit != nil {
				return e.process.died(e.exit)
			}
			c.members[e.process.id-1].process = nil
			left--
		}
	}
	return nil
}

// close kills what still runs, and waits until it is gone.
func (c *cluster) close() error {
	close(c.quit)
	var errs []error
	for _, m := range c.members {
		if m.process == nil {
			continue
		}
		if err := m.process.kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			errs = append(errs, fmt.Errorf("kill node %d: %w", m.id, err))
			continue
		}
		select {
		case <-m.process.done:
		case <-time.After(settleTimeout):
			errs = append(errs, fmt.Errorf("node %d does not die", m.id))
		}
	}
	return errors.Join(errs...)
}
