package page

import (
	"math/rand/v2"
	"testing"
)

// TestSums: the checksum of each range is the one that Sum has for its bytes.
func TestSums(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		mem := make([]byte, r.IntN(20_000)+1)
		s := NewSums(mem)
		for at := 0; at < len(mem); {
			from := min(at+r.IntN(4)*r.IntN(2000), len(mem))
			to := min(from+r.IntN(3000), len(mem))
			for k := from; k < to; k++ {
				mem[k] = byte(r.Uint32() >> r.IntN(32))
			}
			s.Add(int64(from), int64(to))
			at = to + r.IntN(2)
		}
		for range 200 {
			from := r.IntN(len(mem) + 1)
			to := from + r.IntN(len(mem)+1-from)
			crc := r.Uint32() >> r.IntN(32)
			if got, want := s.Sum(crc, int64(from), int64(to)), Sum(crc, mem[from:to]); got != want {
				t.Fatalf("[%d, %d) of %d bytes: %08x, want %08x", from, to, len(mem), got, want)
			}
		}
	}
}

// TestSkipZeros: many zeros count as they do one after another.
func TestSkipZeros(t *testing.T) {
	zeros := make([]byte, 1<<20)
	for _, n := range []int64{0, 1, 255, 256, 257, 65_535, 65_536, 1<<20 - 1, 1 << 20} {
		if got, want := skipZeros(0x12345678, n), ^Sum(^uint32(0x12345678), zeros[:n]); got != want {
			t.Errorf("%d zeros: %08x, want %08x", n, got, want)
		}
	}
	if got, want := skipZeros(skipZeros(1, 3<<40), 5<<33), skipZeros(1, 3<<40+5<<33); got != want {
		t.Errorf("very many zeros: %08x, want %08x", got, want)
	}
}

// TestSumsCost: a range costs a few bytes, however long it is.
func TestSumsCost(t *testing.T) {
	mem := make([]byte, 1<<20)
	for k := range mem {
		mem[k] = byte(k)
	}
	s := NewSums(mem)
	s.Add(0, 1<<20)
	before := s.Summed()
	for from := int64(0); from < 1<<20; from += 1024 {
		s.Sum(1, from+5, 1<<20-3)
	}
	if n := s.Summed() - before; n > 1024*2*sumStep {
		t.Errorf("1,024 ranges: %d bytes were read", n)
	}
}

func BenchmarkSums(b *testing.B) {
	mem := make([]byte, 1<<20)
	s := NewSums(mem)
	s.Add(0, 1<<20)
	for k := range b.N {
		s.Sum(1, int64(k&0xffff)+5, 1<<20-3-int64(k&0xff))
	}
}
