package demo

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Streams of random numbers that are drawn from one seed.
const (
	streamKills   uint64 = 1 << 63
	streamSession uint64 = 1<<63 + 1
)

const headerSize = 16 // session and number

// session makes the writes of one run. They depend on the seed alone.
type session struct {
	seed uint64
	id   uint64
}

func newSession(seed uint64) session {
	return session{seed: seed, id: rand.New(rand.NewPCG(seed, streamSession)).Uint64()}
}

// payload returns the data of write seq: the session, the number, and some
// 0.5 to 1.5 KiB of noise.
func (s session) payload(seq uint64) []byte {
	rng := rand.New(rand.NewPCG(s.seed, seq))
	words := 64 + rng.IntN(128)
	data := make([]byte, 0, headerSize+8*words)
	data = binary.BigEndian.AppendUint64(data, s.id)
	data = binary.BigEndian.AppendUint64(data, seq)
	for range words {
		data = binary.BigEndian.AppendUint64(data, rng.Uint64())
	}
	return data
}

// parsePayload returns the session and the number of a write.
func parsePayload(data []byte) (id, seq uint64, err error) {
	if len(data) < headerSize {
		return 0, 0, fmt.Errorf("%d bytes are too few for a write", len(data))
	}
	return binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:]), nil
}
