package main

import (
	"sync"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// network carries messages between nodes in memory. Those to and from nodes that are
// not there are lost.
type network struct {
	mu    sync.Mutex
	nodes map[uint64]*node
}

func newNetwork() *network { return &network{nodes: map[uint64]*node{}} }

func (net *network) join(n *node) {
	net.mu.Lock()
	defer net.mu.Unlock()
	net.nodes[n.id] = n
}

func (net *network) leave(n *node) {
	net.mu.Lock()
	defer net.mu.Unlock()
	if net.nodes[n.id] == n {
		delete(net.nodes, n.id)
	}
}

// send does not wait for the receivers. Each gets a copy, as over a wire.
func (net *network) send(from *node, ms ...*raftpb.Message) {
	net.mu.Lock()
	defer net.mu.Unlock()
	if net.nodes[from.id] != from {
		return
	}
	for _, m := range ms {
		switch to := net.nodes[m.GetTo()]; to {
		case nil:
		case from:
			from.inbox.put(m)
		default:
			to.inbox.put(proto.Clone(m).(*raftpb.Message))
		}
	}
}

// queue holds messages for who takes them. It has no limit: a done function of
// SaveAsync holds up those behind it, so what it sends must not wait.
type queue struct {
	filled chan struct{} // receives when there may be messages

	mu sync.Mutex
	ms []*raftpb.Message
}

func newQueue() *queue { return &queue{filled: make(chan struct{}, 1)} }

func (q *queue) put(m *raftpb.Message) {
	q.mu.Lock()
	q.ms = append(q.ms, m)
	q.mu.Unlock()
	select {
	case q.filled <- struct{}{}:
	default: // it is known already
	}
}

// take returns all messages.
func (q *queue) take() []*raftpb.Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	ms := q.ms
	q.ms = nil
	return ms
}
