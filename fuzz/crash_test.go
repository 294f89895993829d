package fuzz

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/damage"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// choices is a source of random numbers that an input decides, as long as it
// lasts: two bytes for each. Behind it numbers go on, and are always the same.
type choices struct {
	input []byte
	rest  *rand.PCG
}

func newChoices(input []byte) *choices { return &choices{input, rand.NewPCG(uint64(len(input)), 1)} }

func (c *choices) Uint64() uint64 {
	if len(c.input) < 2 {
		c.input = nil
		return c.rest.Uint64()
	}
	v := uint64(c.input[0])<<8 | uint64(c.input[1])
	c.input = c.input[2:]
	return v * 0x0001_0001_0001_0001 // whatever bits are looked at
}

// unsynced is what wal.meta stores without a sync.
type unsynced struct {
	hard       [3]uint64
	checkpoint uint64
}

func unsyncedOf(m *oracle.Model) unsynced { return unsynced{m.Hard, m.Checkpoint} }

// crash is a history on a disk that loses its power.
type crash struct {
	t      *testing.T
	noSync bool
	r      *rand.Rand // picks the calls
	m      *oracle.Model
	// What may be found: one of the models, with one of those noted.
	models []*oracle.Model
	noted  []unsynced
	trace  []string
}

func (c *crash) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s\nhistory:\n%s", fmt.Sprintf(format, args...), strings.Join(c.trace, "\n"))
}

func (c *crash) open(disk *simdisk.FS) (*mmapwal.DiskStorage, error) {
	opts := damage.Options()
	opts.RetainEntries = c.m.Retain
	if c.noSync {
		opts.Sync = mmapwal.NoSync
	}
	return damage.Open(disk, byte(len(c.trace)), opts)
}

// stopped: nothing but the power stops a call.
func (c *crash) stopped(err error) {
	c.t.Helper()
	if !errors.Is(err, simdisk.ErrCut) || errors.Is(err, mmapwal.ErrCorrupt) {
		c.fail("error %v", err)
	}
}

// live makes calls until the power goes, or the input ends.
func (c *crash) live(disk *simdisk.FS, input *choices) {
	d, err := c.open(disk)
	if err != nil {
		c.stopped(err)
		return
	}
	defer func() { _ = d.Close() }()
	for len(input.input) > 0 && !disk.IsCut() {
		if err := c.call(d); err != nil {
			c.stopped(err)
			return
		}
	}
	disk.CutAt(1) // without a Close
}

func (c *crash) call(d *mmapwal.DiskStorage) error {
	op := c.pick()
	c.trace = append(c.trace, fmt.Sprintf("%+v on %s", op, c.m.Brief()))
	before, after := c.models, op.Outcomes(c.m)
	c.models = slices.Concat(c.models, after[1:])
	if op.Truncate > 0 {
		c.models = append(c.models, clearedBelow(c.models, op.Truncate)...)
	}
	last := after[len(after)-1]
	c.noted = append(c.noted, unsyncedOf(last))
	if err := op.Do(d, c.m); err != nil {
		return err
	}
	c.done(&op, before, after)
	return nil
}

func (c *crash) pick() oracle.Op {
	m := c.m
	switch c.r.IntN(12) {
	case 0:
		return oracle.Op{Truncate: 1 + c.r.Uint64N(m.Snap[0]+1)}
	case 1:
		if m.Snap[0] > m.Base[0] {
			return oracle.Op{Compact: m.Base[0] + 1 + c.r.Uint64N(m.Snap[0]-m.Base[0])}
		}
	}
	m = m.Clone()
	m.Hard[2] = max(m.Hard[2], m.Snap[0])
	return oracle.Next(c.r, m)
}

func clearedBelow(models []*oracle.Model, below uint64) (all []*oracle.Model) {
	for _, m := range models {
		m = m.Clone()
		m.Cleared = max(m.Cleared, below)
		all = append(all, m)
	}
	return all
}

// done drops what cannot be found any more, now that the call has returned.
func (c *crash) done(op *oracle.Op, before, after []*oracle.Model) {
	m := after[len(after)-1]
	switch {
	case op.Truncate > 0 && op.Truncate <= max(c.m.Cleared, c.m.Base[0]+1): // nothing to do
	case op.Truncate > 0:
		c.models, c.noted = append(clearedBelow(before, op.Truncate), m), []unsynced{unsyncedOf(m)}
	case op.Create > 0, op.Snap[0] > 0, op.Compact > 0:
		c.models, c.noted = []*oracle.Model{m}, []unsynced{unsyncedOf(c.m), unsyncedOf(m)}
		if c.noSync && op.Snap[0] > 0 {
			c.models = after[1:]
		}
	case !c.noSync:
		c.models = []*oracle.Model{m}
	}
	if !c.noSync && (m.Hard[0] != c.m.Hard[0] || m.Hard[1] != c.m.Hard[1]) {
		c.noted = []unsynced{unsyncedOf(m)}
	}
	c.m = m
}

// check compares a log with what may be found, and returns what is.
func (c *crash) check(d *mmapwal.DiskStorage) *oracle.Model {
	c.t.Helper()
	got, err := oracle.Read(d)
	if err != nil {
		c.fail("read: %v", err)
	}
	for _, m := range slices.Backward(c.models) {
		if !m.SameEntries(got) || !c.fits(m, unsyncedOf(got)) {
			continue
		}
		want := m.Clone()
		want.Hard, want.Checkpoint = got.Hard, got.Checkpoint
		if err = want.CheckContent(d); err == nil {
			return want
		}
	}
	want := ""
	for _, m := range c.models {
		want += "\n" + m.Brief()
	}
	c.fail("the log is\n%s\n(%v), want one of%s\nwith one of %v", got.Brief(), err, want, c.noted)
	return nil
}

// fits reports whether got was noted, with its commit index put inside the log.
func (c *crash) fits(m *oracle.Model, got unsynced) bool {
	return slices.ContainsFunc(c.noted, func(n unsynced) bool {
		if n.hard[0] > 0 {
			n.hard[2] = min(max(n.hard[2], m.Snap[0]), m.Last())
		}
		return n == got
	})
}

// usable recovers a disk, saves to it, and opens it again.
func (c *crash) usable(disk *simdisk.FS) {
	d, err := c.open(disk)
	if err != nil {
		c.fail("recovery: %v", err)
	}
	m := c.check(d)
	term := max(m.Hard[0], m.Term(m.Last())) + 1
	op := oracle.Op{Hard: [3]uint64{term, 1, m.Hard[2]}, From: m.Last() + 1, Terms: []uint64{term}}
	if err := errors.Join(op.Do(d, m), d.Close()); err != nil {
		c.fail("save after recovery: %v", err)
	}
	m = op.Done(m)
	c.models, c.noted = []*oracle.Model{m}, []unsynced{unsyncedOf(m)}
	if d, err = c.open(disk); err != nil {
		c.fail("reopened: %v", err)
	}
	c.check(d)
	_ = d.Close()
}

// FuzzCrash cuts the power at a step of a history, and perhaps at one of its
// recovery; what is found is one of the outcomes that the calls may have left.
func FuzzCrash(f *testing.F) {
	f.Add(byte(0), []byte("some calls, as raft makes them, of all kinds"), uint16(60), uint16(0), []byte("what is lost"))
	f.Add(byte(1), []byte("without syncs more is lost, but never a gap"), uint16(45), uint16(9), []byte{0, 0, 200, 200, 7, 7})
	f.Add(byte(6), []byte{0, 0, 1, 0, 250, 9, 90, 9, 17, 80, 3, 33, 55, 66, 250, 250, 11, 12, 13, 14, 15, 16}, uint16(0), uint16(3), []byte(nil))
	f.Add(byte(5), []byte(strings.Repeat("\xff\x10\x00\x80", 20)), uint16(130), uint16(40), []byte(strings.Repeat("\x80\x00", 9)))
	f.Fuzz(func(t *testing.T, options byte, ops []byte, cut, recovery uint16, lost []byte) {
		if len(ops) > 300 || len(lost) > 300 {
			return
		}
		input, r := newChoices(ops), rand.New(newChoices(lost))
		m := &oracle.Model{Data: crashData, Retain: uint64(options / 2 % 4 * 3)}
		c := &crash{t: t, noSync: options%2 == 1, r: rand.New(input), m: m, models: []*oracle.Model{m}, noted: []unsynced{unsyncedOf(m)}}
		disk := simdisk.New()
		if err := disk.MkdirAll(damage.Dir); err != nil {
			t.Fatal(err)
		}
		disk.CutAt(int(cut))
		c.live(disk, input)
		disk = disk.Crash(r)
		if recovery > 0 {
			disk.CutAt(int(recovery))
			if d, err := c.open(disk); err != nil {
				c.stopped(err)
			} else {
				c.check(d)
				disk.CutAt(1)
				_ = d.Close()
			}
			disk = disk.Crash(r)
		}
		c.usable(disk)
	})
}

// crashData is the data of an entry: a few fill a file.
func crashData(i, term uint64) []byte {
	size := int((i*7919 + term*104729) % 200)
	if (i+term)%29 == 0 {
		size += 400_000
	}
	return oracle.Data(i, term, size)
}
