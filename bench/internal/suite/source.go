package suite

import (
	"math/rand/v2"

	"go.etcd.io/raft/v3/raftpb"
)

// poolBytes is how many random bytes the data of all entries is taken from.
const poolBytes = 4 << 20

// source makes entries that continue each other.
type source struct {
	pool []byte
	next uint64 // index
	at   int    // in pool
}

func newSource(rng *rand.Rand) *source {
	s := &source{pool: make([]byte, poolBytes), next: 1}
	for k := range s.pool {
		s.pool[k] = byte(rng.Uint32())
	}
	return s
}

// restart makes the next entry the first of a log.
func (s *source) restart() { s.next = 1 }

// batch returns n entries with size bytes of data each.
func (s *source) batch(n, size int) []*raftpb.Entry {
	entries := make([]raftpb.Entry, n)
	es := make([]*raftpb.Entry, n)
	for k := range es {
		es[k] = &entries[k]
		es[k].Index, es[k].Term, es[k].Data = new(s.next), new(uint64(1)), s.data(size)
		s.next++
	}
	return es
}

func (s *source) data(size int) []byte {
	if s.at+size > len(s.pool) {
		s.at = 0
	}
	s.at += size
	return s.pool[s.at-size : s.at : s.at]
}
