package entryfile

import (
	"crypto/rand"
	"io"
	"os"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// cold is a file system of which no page of a file's memory is there before it was waited for: a
// load from another is a fault, and so an error.
type cold struct {
	vfs.FS
	t    *testing.T
	maps []*coldMapping
}

type coldFile struct {
	vfs.File
	c *cold
}

type coldMapping struct {
	vfs.Mapping
	c *cold
}

func (c *cold) Open(name string, readOnly bool) (vfs.File, error) {
	file, err := c.FS.Open(name, readOnly)
	if err != nil {
		return nil, err
	}
	return &coldFile{file, c}, nil
}

func (f *coldFile) Map(size int64) (vfs.Mapping, error) {
	m, err := f.File.Map(size)
	if err != nil {
		return nil, err
	}
	cm := &coldMapping{m, f.c}
	f.c.maps = append(f.c.maps, cm)
	cm.allow(0, size, unix.PROT_NONE)
	return cm, nil
}

func (m *coldMapping) PopulateRead(off, n int64) error {
	m.allow(off, n, unix.PROT_READ)
	return m.Mapping.PopulateRead(off, n)
}

// allow says what may be done with the pages of [off, off+n).
func (m *coldMapping) allow(off, n int64, access int) {
	mem, size := m.Bytes(), int64(os.Getpagesize())
	from, to := off&^(size-1), min(roundUp(off+n, size), int64(len(mem)))
	if from < to {
		must(m.c.t, unix.Mprotect(mem[from:to], access))
	}
}

// forget takes all pages of the files away again.
func (c *cold) forget() {
	for _, m := range c.maps {
		if mem := m.Bytes(); mem != nil {
			m.allow(0, int64(len(mem)), unix.PROT_NONE)
		}
	}
}

// coldCase is a file, and what is done with it when none of its pages is in memory.
type coldCase struct {
	f    *File // closed
	es   []*raftpb.Entry
	keys *encryption.DirectoryKey
}

// run opens the file, and forgets its pages before each step.
func (c *coldCase) run(t *testing.T, name string, steps ...func(t *testing.T, g *File)) {
	t.Run(name, func(t *testing.T) {
		fsys := &cold{FS: vfs.OS(), t: t}
		g, err := Open(fsys, c.f.dir, c.f.Number(), testLog, c.keys, false)
		must(t, err)
		defer g.Release()
		for _, step := range steps {
			fsys.forget()
			step(t, g)
		}
	})
}

// cut makes a step of what is done with a cut of the file.
func cut(use func(t *testing.T, c *Cut)) func(*testing.T, *File) {
	return func(t *testing.T, g *File) {
		c, err := g.Cut()
		must(t, err)
		defer c.Release()
		use(t, &c)
	}
}

// cutSteps read a cut as a backup does.
var cutSteps = []func(*testing.T, *File){
	cut(func(t *testing.T, c *Cut) {
		_, err := c.Slots()
		must(t, err)
	}),
	cut(func(t *testing.T, c *Cut) {
		_, err := c.Records()
		must(t, err)
	}),
	cut(func(t *testing.T, c *Cut) {
		for at := int64(DataStart); at < c.End(); {
			p := make([]byte, min(256<<10, c.End()-at))
			n, err := c.ReadAt(p, at)
			must(t, err)
			at += int64(n)
		}
	}),
	cut(func(t *testing.T, c *Cut) {
		if _, err := c.ReadAt(make([]byte, page.Size), c.Header().Size-1); err != io.EOF {
			t.Errorf("error %v at the end of the file, want %v", err, io.EOF)
		}
	}),
	cut(func(t *testing.T, c *Cut) {
		from := max(DataStart, c.Header().Seal.Punched)
		for from < c.End() {
			to, err := c.Check(Extent{from, c.End()})
			must(t, err)
			from = to
		}
	}),
	cut(func(t *testing.T, c *Cut) {
		changed, err := c.Changed()
		must(t, err)
		if changed {
			t.Error("changed")
		}
	}),
}

func checkedScan(t *testing.T, g *File) Scan {
	t.Helper()
	s, err := g.Check()
	must(t, err)
	return s
}

// coldTail returns a file that is not sealed, closed.
func coldTail(t *testing.T) *coldCase {
	t.Helper()
	es := append(plain(1, 301, 10_000), plain(301, 302, 700_000)...)
	f := synced(t, vfs.OS(), 8<<20)
	put(t, f, es, testDirect)
	must(t, f.Sync())
	must(t, f.SyncSlots())
	must(t, f.Release())
	return &coldCase{f: f, es: es}
}

// TestAwaited: what is read from memory that the system may have to get from the disk, it was
// asked for before, in a call: a load that waits keeps other goroutines from running.
func TestAwaited(t *testing.T) {
	var s Scan
	scan := func(t *testing.T, g *File) { s = checkedScan(t, g) }
	c := coldTail(t)
	c.run(t, "recover", scan,
		func(t *testing.T, g *File) { must(t, g.Restore(s, DataStart)) },
		func(t *testing.T, g *File) { must(t, g.Seal()) })
	c = coldTail(t)
	c.run(t, "cut", append(cutSteps, func(t *testing.T, g *File) { must(t, g.Continue(c.f.End(), true)) })...)
	c.run(t, "continue",
		func(t *testing.T, g *File) {
			must(t, g.Continue(c.f.End(), true))
			wantEntries(t, g, c.es)
		},
		func(t *testing.T, g *File) { put(t, g, plain(302, 304, 20_000), testDirect) },
		func(t *testing.T, g *File) { must(t, g.Seal()) })
	c = coldTail(t)
	flip(t, c.f, c.f.index.Record(200)+RecordHeaderBytes)
	zero(t, c.f, 0, MaxSlots*SlotBytes)
	c.run(t, "damaged", scan, func(t *testing.T, g *File) { wantDamaged(t, g, &s, 200) })
}

// wantDamaged: the record where s ends is that of entry i, for sure.
func wantDamaged(t *testing.T, g *File, s *Scan, i uint64) {
	t.Helper()
	if first, last := g.Damaged(s); first != i || last != i {
		t.Errorf("damaged: %d to %d, want %d", first, last, i)
	}
}

// large returns the entries 1 to 200, of which every twentieth is a conf change.
func large() []*raftpb.Entry {
	es := plain(1, 201, 20_000)
	for _, e := range es {
		if e.GetIndex()%20 == 0 {
			e.Type = raftpb.EntryConfChange.Enum()
		}
	}
	return es
}

// coldSealed returns a sealed file of which a part is cleared, closed.
func coldSealed(t *testing.T, keys *encryption.DirectoryKey, es ...*raftpb.Entry) *coldCase {
	t.Helper()
	s := spec(8 << 20)
	s.Keys, s.Random = keys, rand.Reader
	f := made(t, vfs.OS(), s)
	save(t, f, es)
	must(t, f.Seal())
	extents, err := clearBelow(f, 90)
	must(t, err)
	_ = f.Punch(extents) // not on every file system
	must(t, f.Release())
	return &coldCase{f: f, es: es, keys: keys}
}

// TestAwaitedSealed is TestAwaited for sealed files.
func TestAwaitedSealed(t *testing.T) {
	keys, err := encryption.NewDirectoryKey(rand.Reader, testLog, 32)
	must(t, err)
	for name, keys := range map[string]*encryption.DirectoryKey{"plain": nil, "encrypted": keys} {
		t.Run(name, func(t *testing.T) { testAwaitedSealed(t, keys) })
	}
}

func testAwaitedSealed(t *testing.T, keys *encryption.DirectoryKey) {
	read := func(t *testing.T, g *File) {
		got, err := getBlank(g, 1, 201, 90)
		must(t, err)
		if len(got) != 200 {
			t.Errorf("%d entries, want 200", len(got))
		}
	}
	check := func(t *testing.T, g *File) { checkedScan(t, g) }
	c := coldSealed(t, keys, large()...)
	c.run(t, "read", read)
	c.run(t, "cut", cutSteps...)
	c.run(t, "header", check, func(t *testing.T, g *File) { must(t, g.EnsureHeader()) })
	c.run(t, "damaged", func(t *testing.T, g *File) {
		s := Scan{End: c.location(t, 150)}
		wantDamaged(t, g, &s, 150)
	})
	zero(t, c.f, 149*SlotBytes, SlotBytes)
	c.run(t, "cut with damaged slots", cutSteps...)
	c.run(t, "heal", read, func(t *testing.T, g *File) { must(t, g.Reseal(200)) })
	c.run(t, "reseal", func(t *testing.T, g *File) { must(t, g.Reseal(180)) })
	c.run(t, "clear", func(t *testing.T, g *File) {
		_, err := clearBelow(g, 130)
		must(t, err)
	})
	c = coldSealed(t, keys, entries(1, 5001, 1)...) // their slots are more than a read waits for
	c.run(t, "read of many", func(t *testing.T, g *File) {
		_, err := get(g, 5000, 5001, 90)
		must(t, err)
	})
}

// location returns where the record of entry i is, read from a file system that is not cold.
func (c *coldCase) location(t *testing.T, i uint64) int64 {
	t.Helper()
	g, err := Open(vfs.OS(), c.f.dir, c.f.Number(), testLog, c.keys, false)
	must(t, err)
	defer g.Release()
	return recordAt(t, g, i)
}
