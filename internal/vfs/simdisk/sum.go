package simdisk

import "encoding/binary"

// mix adds a number to a sum, so that every bit counts.
func mix(sum, v uint64) uint64 {
	sum = (sum ^ v) * 0x9e3779b97f4a7c15
	sum ^= sum >> 32
	sum *= 0xd6e8feb86659fd93
	return sum ^ sum>>32
}

func mixString(sum uint64, s string) uint64 {
	for k := range len(s) {
		sum = mix(sum, uint64(s[k]))
	}
	return mix(sum, uint64(len(s)))
}

// setSum sums the bytes up, in four lanes that the processor runs side by side.
func (p *pageData) setSum() {
	const lanes = 4
	sums := [lanes]uint64{1, 2, 3, 4}
	for at := 0; at < pageSize; at += 8 * lanes {
		for k := range sums {
			v := binary.LittleEndian.Uint64(p.bytes[at+8*k:])
			sums[k] = (sums[k] ^ v) * 0x9e3779b97f4a7c15
			sums[k] ^= sums[k] >> 29
		}
	}
	p.sum = 0
	for _, s := range sums {
		p.sum = mix(p.sum, s)
	}
}
