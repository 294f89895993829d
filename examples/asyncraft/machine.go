package main

import (
	"encoding/binary"
	"hash/fnv"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// machine is the state machine: which proposals were applied, and in what order. One
// that was proposed twice counts once.
type machine struct {
	mu    sync.Mutex
	seen  map[uint64]bool
	chain uint64 // hash over the proposals in their order
}

func newMachine() *machine { return &machine{seen: map[uint64]bool{}} }

func (s *machine) apply(es []*raftpb.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range es {
		if len(e.GetData()) == 0 {
			continue // a new leader's first entry
		}
		number := binary.BigEndian.Uint64(e.GetData())
		if s.seen[number] {
			continue
		}
		s.seen[number] = true
		h := fnv.New64a()
		_, _ = h.Write(binary.BigEndian.AppendUint64(e.GetData(), s.chain)) // a hash does not fail
		s.chain = h.Sum64()
	}
}

func (s *machine) has(number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[number]
}

// countIn returns how many of the proposals [from, to] were applied.
func (s *machine) countIn(from, to uint64) (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for number := from; number <= to; number++ {
		if s.seen[number] {
			n++
		}
	}
	return n
}

// sum tells states apart.
func (s *machine) sum() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chain
}
