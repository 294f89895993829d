package suite

import (
	"fmt"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
)

// Workload is one thing that is measured again and again.
type Workload struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"` // in a call
	Size    int    `json:"size"`    // bytes of data in an entry

	// How it saves, if it does.
	NoSync   bool `json:"no_sync,omitempty"`
	Batch    bool `json:"batch,omitempty"`     // see contender.Options
	Reused   bool `json:"reused,omitempty"`    // to files that were used before
	InFlight int  `json:"in_flight,omitempty"` // so many saves wait at a time; 0: it waits for each

	// What it reads, if it does: entries, or their terms.
	Reads  bool `json:"reads,omitempty"`
	Terms  bool `json:"terms,omitempty"`
	Random bool `json:"random,omitempty"` // else in order
	Recent bool `json:"recent,omitempty"` // the last ones that were saved; else those of a log that was opened anew

	Ours  bool `json:"ours,omitempty"`  // others have nothing like it
	Curve bool `json:"curve,omitempty"` // its percentiles are drawn
}

// Workloads returns all of them.
func Workloads() []Workload {
	var ws []Workload
	for _, reused := range []bool{false, true} {
		for _, n := range []int{1, 16, 256} {
			for _, size := range []int{128, 1 << 10, 4 << 10, 64 << 10} {
				ws = append(ws, saves(n, size, reused))
			}
		}
	}
	return append(append(ws, unsynced()...), reads()...)
}

// saves returns the workload of synced saves.
func saves(entries, size int, reused bool) Workload {
	w := Workload{Entries: entries, Size: size, Reused: reused, Ours: reused}
	w.Name = named("save", entries, size)
	if reused {
		w.Name = named("reused", entries, size)
	}
	bytes := w.Bytes()
	w.Curve = bytes == 128 || bytes == 16<<10 || entries == 256 && size == 4<<10
	return w
}

// unsynced returns those that do not wait for the disk.
func unsynced() []Workload {
	var ws []Workload
	for _, n := range []int{1, 8, 64} {
		ws = append(ws, Workload{
			Name: fmt.Sprintf("inflight%d-1x128", n), Entries: 1, Size: 128, InFlight: n, Ours: n != 64, Curve: n == 64,
		})
	}
	ws = append(ws, Workload{Name: "batchsync-1x128", Entries: 1, Size: 128, Batch: true, Ours: true, Curve: true})
	for _, n := range []int{1, 64} {
		for _, size := range []int{128, 1 << 10} {
			ws = append(ws, Workload{Name: named("nosync", n, size), Entries: n, Size: size, NoSync: true, Curve: true})
		}
	}
	return ws
}

// termsPerCall is how many terms are looked up in a call: one takes less than
// reading the clock.
const termsPerCall = 256

func reads() []Workload {
	return []Workload{
		{Name: "read-recent", Entries: 64, Size: 1024, Reads: true, NoSync: true, Recent: true, Random: true},
		{Name: "read-sequential", Entries: 64, Size: 1024, Reads: true, NoSync: true},
		{Name: "read-random", Entries: 1, Size: 1024, Reads: true, NoSync: true, Random: true},
		{Name: "term-random", Entries: termsPerCall, Size: 128, Terms: true, NoSync: true, Random: true},
	}
}

func named(kind string, entries, size int) string {
	return fmt.Sprintf("%s-%dx%s", kind, entries, sizeName(size))
}

func sizeName(n int) string {
	if n%1024 == 0 {
		return fmt.Sprintf("%dK", n/1024)
	}
	return fmt.Sprint(n)
}

// Bytes returns how many bytes of data a call saves or reads.
func (w Workload) Bytes() int { return w.Entries * w.Size }

// Saves reports whether the workload saves.
func (w Workload) Saves() bool { return !w.Reads && !w.Terms }

// Synced reports whether it waits for the disk after each save.
func (w Workload) Synced() bool { return w.Saves() && !w.NoSync && !w.Batch && w.InFlight == 0 }

// suits reports whether c can do w.
func (w Workload) suits(c contender.Contender) bool {
	switch {
	case c.Name == contender.Reference:
		return true
	case w.Ours && !c.Ours, w.Terms && !c.Terms:
		return false
	}
	return w.Saves() || !c.WriteOnly
}
