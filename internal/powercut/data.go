package powercut

import (
	"sync"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
)

const (
	// fileBytes is the smallest FileDataSize.
	fileBytes = 1 << 20
	// largeBytes is the data of an entry beside which no other fits into a file.
	largeBytes = fileBytes - 64
	// sparseBytes is the size from which on data is zero for the most part: a
	// sector that stays zero can not be lost, which keeps the images few.
	sparseBytes = 10_000
	sparseStep  = 128 << 10
)

// shortData is the data of an entry of a short history: a few sectors at most,
// unless it is large.
func shortData(i, term uint64) []byte {
	if isLarge(term) {
		return data(i, term, largeBytes)
	}
	return data(i, term, int(i*7919+term*104729)%300)
}

// longData is that of a long one: now and then so large that files fill.
func longData(i, term uint64) []byte {
	if isLarge(term) {
		return data(i, term, largeBytes)
	}
	size := int(i*7919+term*104729) % 300
	switch (i + term) % 23 {
	case 0:
		size += 300_000
	case 7, 14:
		size += 5_000
	}
	return data(i, term, size)
}

// dataKey names the data of an entry.
type dataKey struct {
	i, term uint64
	size    int
}

var (
	dataMu    sync.Mutex
	dataCache = make(map[dataKey][]byte)
)

// data returns the same bytes for the same arguments. They must not be changed.
func data(i, term uint64, size int) []byte {
	key := dataKey{i, term, size}
	dataMu.Lock()
	defer dataMu.Unlock()
	d, ok := dataCache[key]
	if !ok {
		if len(dataCache) > 256 {
			clear(dataCache)
		}
		d = makeData(i, term, size)
		dataCache[key] = d
	}
	return d
}

func makeData(i, term uint64, size int) []byte {
	if size < sparseBytes {
		return oracle.Data(i, term, size)
	}
	d := make([]byte, size)
	for at := 0; at < size; at += sparseStep {
		copy(d[at:], oracle.Data(i, term, 100))
	}
	copy(d[size-100:], oracle.Data(term, i, 100))
	return d
}
