package suite

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// Usage is what something takes of the machine. What /proc would tell is 0 where
// there is none.
type Usage struct {
	HeapBytes     float64 `json:"heap_bytes"`     // of Go
	ResidentBytes float64 `json:"resident_bytes"` // pages of files that are mapped included
	DiskBytes     float64 `json:"disk_bytes"`
	Descriptors   float64 `json:"descriptors"`
	Mappings      float64 `json:"mappings"`
	Goroutines    float64 `json:"goroutines"`
}

// usage returns what the process takes, and what the files in dir do.
func usage(dir string) Usage {
	u := Usage{HeapBytes: float64(heap()), Goroutines: float64(runtime.NumGoroutine())}
	u.ResidentBytes = float64(resident())
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.Descriptors = float64(len(fds))
	}
	if maps, err := os.ReadFile("/proc/self/maps"); err == nil {
		u.Mappings = float64(bytes.Count(maps, []byte("\n")))
	}
	u.DiskBytes = float64(diskBytes(dir))
	return u
}

// since returns what was added to before, for each of n.
func (u Usage) since(before Usage, n int) Usage {
	each := func(now, before float64) float64 { return (now - before) / float64(n) }
	return Usage{
		HeapBytes: each(u.HeapBytes, before.HeapBytes), ResidentBytes: each(u.ResidentBytes, before.ResidentBytes),
		DiskBytes: each(u.DiskBytes, before.DiskBytes), Descriptors: each(u.Descriptors, before.Descriptors),
		Mappings: each(u.Mappings, before.Mappings), Goroutines: each(u.Goroutines, before.Goroutines),
	}
}

// heap returns how many bytes of the heap are in use.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// resident returns how many bytes of the process are in memory.
func resident() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	in := bufio.NewScanner(bytes.NewReader(text))
	in.Split(bufio.ScanWords)
	in.Scan() // the size of the address space
	in.Scan()
	pages, _ := strconv.ParseUint(in.Text(), 10, 64)
	return pages * uint64(os.Getpagesize())
}

// diskBytes returns what the files below dir take on the disk. Those that are removed
// meanwhile do not count.
func diskBytes(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && syscall.Lstat(path, &st) == nil {
			n += st.Blocks * 512
		}
		return nil
	})
	return n
}
