package page

import "testing"

func TestSum(t *testing.T) {
	const want uint32 = 0xe3069283 // the check value of CRC-32C
	p := []byte("123456789")
	if got := Sum(0, p); got != want {
		t.Errorf("%08x, want %08x", got, want)
	}
	for i := range p {
		if got := Sum(Sum(0, p[:i]), p[i:]); got != want {
			t.Errorf("in two parts of %d and %d bytes: %08x, want %08x", i, len(p)-i, got, want)
		}
	}
}

func TestSeal(t *testing.T) {
	p := make([]byte, 64)
	for i := range p {
		p[i] = byte(i)
	}
	for _, at := range []int{0, 12, len(p) - 4} {
		Seal(p, at)
		if !Sealed(p, at) {
			t.Errorf("at %d: not sealed", at)
		}
		for i := range p {
			p[i] ^= 0x80
			if Sealed(p, at) {
				t.Errorf("at %d: byte %d changed unnoticed", at, i)
			}
			p[i] ^= 0x80
		}
	}
}
