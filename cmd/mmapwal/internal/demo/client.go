package demo

import "time"

// client is the one client of the group: it sends the writes and knows which
// were acknowledged.
type client struct {
	session session
	writes  uint64
	acked   uint64 // writes acknowledged: 1 to acked
	asked   uint64 // the last write that the present leader was asked for
	sent    []int  // sent[i] is how often write i+1 was sent

	leader     *process // that is asked
	term       uint64
	progressed time.Time // when a write was acknowledged, or the leader asked anew
}

func newClient(s session, writes int) *client {
	return &client{session: s, writes: uint64(writes), sent: make([]int, writes)}
}

// follow makes m, which may be nil, the node that is asked. If that is a change,
// or the last one does not get on, it is asked for all that is not acknowledged.
func (c *client) follow(m *member, now time.Time) {
	if m == nil {
		c.leader = nil
		return
	}
	if c.leader == m.process && c.term == m.status.Term && (c.asked == c.acked || now.Sub(c.progressed) < stalledAfter) {
		return
	}
	c.leader, c.term, c.asked, c.progressed = m.process, m.status.Term, c.acked, now
}

// acknowledge takes over what the node that was asked has applied, of what it was
// asked for.
func (c *client) acknowledge(m *member, now time.Time) {
	if m.process == nil || c.leader != m.process {
		return
	}
	if acked := min(m.applied, c.asked); acked > c.acked {
		c.acked, c.progressed = acked, now
	}
}

// pump asks for as many more writes as may be in flight, but none beyond limit.
func (c *client) pump(limit uint64, now time.Time) {
	if c.leader == nil {
		return
	}
	if c.asked == c.acked {
		c.progressed = now // nothing was in flight: the wait begins here
	}
	var batch [][]byte
	for limit = min(limit, c.acked+window, c.writes); c.asked < limit; {
		c.asked++
		c.sent[c.asked-1]++
		batch = append(batch, c.session.payload(c.asked))
	}
	if len(batch) > 0 {
		c.leader.propose(batch)
	}
}

// resent returns how often a write was sent again.
func (c *client) resent() int {
	n := 0
	for _, times := range c.sent {
		n += max(0, times-1)
	}
	return n
}
