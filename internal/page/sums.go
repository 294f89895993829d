package page

import (
	"hash/crc32"
	"sort"
)

// Sums tells the checksum of any range of memory, in a time that does not grow with the range.
// So a search for records costs no more than its bytes, whatever those pretend: of ranges that
// overlap, each would else be summed anew.
//
// A CRC is linear: from the state of its register at two places follows that of what lies
// between. So the states at some places are kept.
type Sums struct {
	mem    []byte
	runs   []sumRun
	summed int64
}

// sumRun is a range of memory, with zeros in front of it up to the run before.
type sumRun struct {
	from, to int64
	states   []uint32 // at from, and every sumStep bytes behind it
	last     uint32   // at to
}

// sumStep is how far states that are kept lie apart, in bytes.
const sumStep = 256

// NewSums returns Sums of mem, which are zeros but for what Add adds.
func NewSums(mem []byte) *Sums { return &Sums{mem: mem} }

// Add takes in mem[from:to], which lies behind all that was added before, and must not change
// from then on.
func (s *Sums) Add(from, to int64) {
	r := sumRun{from: from, to: to, states: make([]uint32, 0, (to-from)/sumStep+1)}
	state := s.state(from)
	for at := from; at < to; at += sumStep {
		r.states = append(r.states, state)
		state = s.advance(state, at, min(at+sumStep, to))
	}
	r.last = state
	s.runs = append(s.runs, r)
}

// Sum returns Sum(crc, mem[from:to]).
func (s *Sums) Sum(crc uint32, from, to int64) uint32 {
	return ^(s.state(to) ^ skipZeros(s.state(from)^^crc, to-from))
}

// Summed returns how many bytes were read.
func (s *Sums) Summed() int64 { return s.summed }

// state returns that of a register, 0 in the beginning, that has taken in all up to at.
func (s *Sums) state(at int64) uint32 {
	k := sort.Search(len(s.runs), func(k int) bool { return s.runs[k].from > at }) - 1
	if k < 0 {
		return 0
	}
	r := &s.runs[k]
	if at >= r.to {
		return skipZeros(r.last, at-r.to)
	}
	step := (at - r.from) / sumStep
	return s.advance(r.states[step], r.from+step*sumStep, at)
}

// advance has a register take in mem[from:to].
func (s *Sums) advance(state uint32, from, to int64) uint32 {
	s.summed += to - from
	return ^crc32.Update(^state, castagnoli, s.mem[from:to])
}

// skipZeros has a register take in n zero bytes: that multiplies it by x to the 8n.
func skipZeros(state uint32, n int64) uint32 {
	for k := 0; n > 0 && state != 0; k, n = k+1, n>>8 {
		if digit := n & 0xff; digit != 0 {
			state = multiply(powers[k][digit], state)
		}
	}
	return state
}

// powers[k][n] is x to the 8n·256^k, modulo the polynomial.
var powers = func() (powers [8][256]uint32) {
	base := uint32(1) << (31 - 8) // x to the 8
	for k := range powers {
		powers[k][0] = 1 << 31
		for n := 1; n < 256; n++ {
			powers[k][n] = multiply(powers[k][n-1], base)
		}
		base = multiply(powers[k][255], base)
	}
	return powers
}()

// multiply multiplies two polynomials over the numbers 0 and 1 modulo that of the CRC. The
// highest bit is the coefficient of 1.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		product ^= b & -(a >> 31)
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}
