package suite

import "fmt"

// Workload is one thing that is measured again and again.
type Workload struct {
	Name    string `json:"name"`
	Entries int    `json:"entries"` // in a call
	Size    int    `json:"size"`    // bytes of data in an entry
	NoSync  bool   `json:"no_sync"`
	Reads   bool   `json:"reads"`  // else it saves
	Random  bool   `json:"random"` // else it reads in order
}

// Growth is the name of the workload that looks at logs as they grow. Unlike the
// others it is not compared with the floor.
const Growth = "growth"

// Workloads returns all of them but Growth.
func Workloads() []Workload {
	var ws []Workload
	for _, n := range [][2]int{{1, 128}, {16, 128}, {256, 128}, {16, 1024}, {256, 1024}, {1, 4096}, {256, 4096}} {
		ws = append(ws, saves("save", n[0], n[1]))
	}
	for _, n := range [][2]int{{1, 128}, {16, 1024}} {
		w := saves("nosync", n[0], n[1])
		w.NoSync = true
		ws = append(ws, w)
	}
	return append(ws,
		Workload{Name: "read-sequential", Entries: 64, Size: 1024, Reads: true, NoSync: true},
		Workload{Name: "read-random", Entries: 1, Size: 1024, Reads: true, NoSync: true, Random: true},
	)
}

func saves(kind string, entries, size int) Workload {
	return Workload{Name: fmt.Sprintf("%s-%dx%s", kind, entries, sizeName(size)), Entries: entries, Size: size}
}

func sizeName(n int) string {
	if n%1024 == 0 {
		return fmt.Sprintf("%dK", n/1024)
	}
	return fmt.Sprint(n)
}

// Bytes returns how many bytes of data a call saves or reads.
func (w Workload) Bytes() int { return w.Entries * w.Size }
