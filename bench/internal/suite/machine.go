package suite

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the figures were measured on.
type Machine struct {
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	Kernel     string `json:"kernel"`
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	FileSystem string `json:"file_system"`

	Device      string `json:"device,omitempty"`
	DeviceError string `json:"device_error,omitempty"` // why there are no counters

	ClockNs    float64 `json:"clock_ns"` // what one reading of the clock costs
	LoadBefore string  `json:"load_before"`
	LoadAfter  string  `json:"load_after"`
}

func machine(dir string) Machine {
	return Machine{
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Kernel: kernel(),
		CPU: cpu(), CPUs: runtime.NumCPU(), FileSystem: fileSystem(dir),
		ClockNs: clockNs(), LoadBefore: load(),
	}
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func cpu() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without it, the model is unknown
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func fileSystem(dir string) string {
	names := map[int64]string{
		unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs",
		unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	}
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	if name, ok := names[int64(s.Type)]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", s.Type)
}

// load returns the load averages of 1, 5 and 15 minutes.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	fields := strings.Fields(string(text))
	if err != nil || len(fields) < 3 {
		return "unknown"
	}
	return strings.Join(fields[:3], " ")
}

func clockNs() float64 {
	const readings = 100_000
	started := time.Now()
	for range readings {
		_ = time.Now()
	}
	return float64(time.Since(started)) / readings
}
