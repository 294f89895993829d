// Package device reads the block layer's own counters of the disk that holds a
// directory. They count what everybody writes to that disk.
package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoCounters says that the disk or its counters cannot be found.
var ErrNoCounters = errors.New("no block device counters")

// Fields of a device's stat file, which the kernel describes in
// Documentation/block/stat.rst.
const (
	writesField  = 4
	sectorsField = 6
	flushesField = 15
	sectorBytes  = 512
)

// Counters are what a device has done.
type Counters struct {
	Writes  uint64 // requests that wrote
	Bytes   uint64 // that they wrote
	Flushes uint64 // requests to make its cache durable
}

// Sub returns what was done since before.
func (c Counters) Sub(before Counters) Counters {
	return Counters{Writes: c.Writes - before.Writes, Bytes: c.Bytes - before.Bytes, Flushes: c.Flushes - before.Flushes}
}

// Add returns the sum of both.
func (c Counters) Add(other Counters) Counters {
	return Counters{Writes: c.Writes + other.Writes, Bytes: c.Bytes + other.Bytes, Flushes: c.Flushes + other.Flushes}
}

// Device is a disk with counters.
type Device struct {
	Name string
	stat string // path of its counters
}

// Of returns the disk that holds dir; ErrNoCounters if there is none, as below
// tmpfs, or btrfs, which has devices of its own making.
func Of(dir string) (*Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", dir, err)
	}
	link := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	path, err := filepath.EvalSymlinks(link)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCounters, err)
	}
	path = wholeDisk(path)
	d := &Device{Name: filepath.Base(path), stat: filepath.Join(path, "stat")}
	if _, err := d.Read(); err != nil {
		return nil, err
	}
	return d, nil
}

// wholeDisk returns the disk of a partition: the kernel counts flushes there only.
func wholeDisk(path string) string {
	if _, err := os.Stat(filepath.Join(path, "partition")); err != nil {
		return path
	}
	return filepath.Dir(path)
}

// Read returns the counters as they are now.
func (d *Device) Read() (Counters, error) {
	text, err := os.ReadFile(d.stat)
	if err != nil {
		return Counters{}, fmt.Errorf("%w: %w", ErrNoCounters, err)
	}
	c, err := parse(string(text))
	if err != nil {
		return Counters{}, fmt.Errorf("%w: %s: %w", ErrNoCounters, d.stat, err)
	}
	return c, nil
}

func parse(text string) (Counters, error) {
	fields := strings.Fields(text)
	if len(fields) <= flushesField {
		return Counters{}, fmt.Errorf("%d fields; a kernel that counts flushes shows %d", len(fields), flushesField+2)
	}
	var values [flushesField + 1]uint64
	for k := range values {
		v, err := strconv.ParseUint(fields[k], 10, 64)
		if err != nil {
			return Counters{}, err
		}
		values[k] = v
	}
	return Counters{
		Writes:  values[writesField],
		Bytes:   values[sectorsField] * sectorBytes,
		Flushes: values[flushesField],
	}, nil
}
