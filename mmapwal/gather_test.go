package mmapwal

import (
	"testing"
	"time"
)

// TestGather: a sync waits for the Saves that are expected, not longer than a part of the
// last one, and not at all if they are there.
func TestGather(t *testing.T) {
	const took = 800 * time.Microsecond
	for _, c := range []struct {
		name             string
		stored, expected uint64
		comeAt           time.Duration // when one more Save is stored
		took, want       time.Duration
	}{
		{"they are there", 3, 3, 0, took, 0},
		{"a single caller", 1, 1, 0, took, 0},
		{"nobody was expected", 1, 0, 0, took, 0},
		{"the last comes", 2, 3, 40 * time.Microsecond, took, 40 * time.Microsecond},
		{"it does not", 1, 3, 40 * time.Microsecond, took, took / gatherPart},
		{"a slow disk", 1, 3, 40 * time.Microsecond, time.Second, maxGather},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &syncer{durable: 7, expected: c.expected, took: c.took}
			s.last.Store(7 + c.stored)
			now := time.Duration(0)
			came := false
			s.mu.Lock()
			s.gather(func() time.Duration {
				now += time.Microsecond
				if !came && c.comeAt > 0 && now >= c.comeAt {
					came = true
					s.last.Add(1)
				}
				return now
			})
			s.mu.Unlock()
			if slack := 3 * time.Microsecond; now < c.want || now > c.want+slack {
				t.Errorf("waited %v, want %v", now, c.want)
			}
		})
	}
}
