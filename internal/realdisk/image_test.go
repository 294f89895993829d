package realdisk

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// disk is what the events up to some point have left on a disk.
type disk struct {
	events  []event
	flushed *os.File // image of all that was flushed
	upTo    int      // so many events are in it
	fs      string
}

// lastFlush returns how many of the first n events the last flush among them covers.
func lastFlush(events []event, n int) int {
	for n > 0 && !events[n-1].isFlush() {
		n--
	}
	return n
}

// flushUpTo puts the first n events on the disk; n does not fall.
func (d *disk) flushUpTo(n int) error {
	for ; d.upTo < n; d.upTo++ {
		e := &d.events[d.upTo]
		if _, err := d.flushed.WriteAt(e.data, e.off); err != nil {
			return err
		}
	}
	return nil
}

// cut makes in name the image that is left when the power goes after the first
// n events, of which the first flushed are safe.
func (d *disk) cut(name string, flushed, n int, keep keep) (sum [32]byte, err error) {
	if err := d.flushUpTo(flushed); err != nil {
		return sum, err
	}
	if err := copyImage(name, d.flushed); err != nil {
		return sum, err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	for _, e := range d.events[flushed:n] {
		if err := d.writeSome(f, &e, keep); err != nil {
			return sum, err
		}
	}
	return sumImage(f)
}

// writeSome writes the sectors of e that are kept.
func (d *disk) writeSome(f *os.File, e *event, keep keep) error {
	unit := sector
	if d.isSuperblock(e) {
		unit = 4096
	}
	choose := keep()
	for at := 0; at < len(e.data); at += unit {
		if !choose() {
			continue
		}
		if _, err := f.WriteAt(e.data[at:min(at+unit, len(e.data))], e.off+int64(at)); err != nil {
			return err
		}
	}
	return nil
}

// isSuperblock: file systems that keep theirs in more than one sector, with a
// checksum and no copy, cannot do without a disk that writes it whole.
func (d *disk) isSuperblock(e *event) bool {
	switch d.fs {
	case "btrfs":
		return e.off == 64<<10 || e.off == 64<<20
	case "ext4":
		return e.off == 0 || isJournalSuperblock(e.data)
	}
	return false
}

// isJournalSuperblock tells that of jbd2 by its magic number and type, 3 or 4.
func isJournalSuperblock(p []byte) bool {
	return len(p) >= 8 && bytes.Equal(p[:4], []byte{0xc0, 0x3b, 0x39, 0x98}) && bytes.Equal(p[4:7], []byte{0, 0, 0}) && (p[7] == 3 || p[7] == 4)
}

// keep returns for each write that was not flushed what says which of its
// sectors are kept.
type keep func() (sector func() bool)

func always(b bool) func() bool { return func() bool { return b } }

func keepAll() func() bool  { return always(true) }
func keepNone() func() bool { return always(false) }

// keepSome picks what a disk does with the writes that were not flushed: it has
// done all, none, some, or some sectors of some.
func keepSome(r *rand.Rand) keep {
	share := r.Float64()
	some := func() bool { return r.Float64() < share }
	switch r.IntN(6) {
	case 0:
		return keepAll
	case 1:
		return keepNone
	case 2:
		return func() func() bool { return always(some()) }
	case 3:
		return func() func() bool { return some }
	}
	return func() func() bool {
		if r.IntN(2) == 0 {
			return always(some())
		}
		return some
	}
}

// copyImage copies an image without its holes.
func copyImage(name string, from *os.File) error {
	to, err := os.Create(name)
	if err != nil {
		return err
	}
	info, err := from.Stat()
	if err != nil {
		return errors.Join(err, to.Close())
	}
	err = eachRun(from, func(off int64, p []byte) error {
		_, err := to.WriteAt(p, off)
		return err
	})
	return errors.Join(err, to.Truncate(info.Size()), to.Close())
}

func copyFile(name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	return errors.Join(copyImage(name, f), f.Close())
}

// sumImage tells images apart.
func sumImage(f *os.File) (sum [32]byte, err error) {
	hash := sha256.New()
	err = eachRun(f, func(_ int64, p []byte) error {
		_, _ = hash.Write(p)
		return nil
	})
	return [32]byte(hash.Sum(nil)), err
}

// eachRun calls do with all that a sparse file holds.
func eachRun(f *os.File, do func(off int64, p []byte) error) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); ; {
		start, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for off = start; off < end; {
			n, err := f.ReadAt(buf[:min(end-off, int64(len(buf)))], off)
			if err != nil && err != io.EOF {
				return err
			}
			if err := do(off, buf[:n]); err != nil {
				return err
			}
			off += int64(n)
		}
	}
}

// checkImage mounts an image, which the kernel recovers, and checks the log in it.
func checkImage(t *testing.T, fs, image string, p promise, retain uint64) (found, error) {
	t.Helper()
	dir := image + ".mnt"
	if err := mountImage(fs, image, dir); err != nil {
		return found{}, err
	}
	defer unmount(t, dir)
	return checkLog(dir+"/log", p, retain)
}

// cutPoints picks n points at which the power goes: anywhere, around flushes,
// and around acknowledgements.
func cutPoints(r *rand.Rand, events []event, acks []int, n int) []int {
	var flushes, points []int
	for k := range events {
		if events[k].isFlush() {
			flushes = append(flushes, k+1)
		}
	}
	for k := range n {
		at := r.IntN(len(events) + 1)
		switch k % 4 {
		case 1:
			at = flushes[r.IntN(len(flushes))] - r.IntN(2)
		case 2:
			at = acks[r.IntN(len(acks))] - r.IntN(2)
		}
		points = append(points, max(at, 0))
	}
	slices.Sort(points)
	return points
}
