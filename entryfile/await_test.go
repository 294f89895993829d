package entryfile

import (
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// awaited is a file system that notes which bytes of a file's memory were waited for.
type awaited struct {
	vfs.FS
	bytes map[int64]bool // of each 512, the first
}

type awaitedFile struct {
	vfs.File
	a *awaited
}

type awaitedMapping struct {
	vfs.Mapping
	a *awaited
}

func (a *awaited) Open(name string, readOnly bool) (vfs.File, error) {
	file, err := a.FS.Open(name, readOnly)
	return &awaitedFile{file, a}, err
}

func (f *awaitedFile) Map(size int64) (vfs.Mapping, error) {
	m, err := f.File.Map(size)
	return &awaitedMapping{m, f.a}, err
}

func (m *awaitedMapping) PopulateRead(off, n int64) error {
	for at := roundUp(off, 512); at < off+n; at += 512 {
		m.a.bytes[at] = true
	}
	return m.Mapping.PopulateRead(off, n)
}

// missing returns the first byte of [from, to) that nobody waited for; -1 if there is none.
func (a *awaited) missing(from, to int64) int64 {
	for at := roundUp(from, 512); at < to; at += 512 {
		if !a.bytes[at] {
			return at
		}
	}
	return -1
}

// TestAwaited: what is read from memory that the system may have to get from the disk, it was
// asked for before, in a call: a load that waits keeps other goroutines from running.
func TestAwaited(t *testing.T) {
	es := plain(1, 301, 10_000)
	es = append(es, plain(301, 302, 700_000)...)
	f := synced(t, vfs.OS(), 8<<20)
	put(t, f, es, testDirect)
	must(t, f.Sync())
	must(t, f.SyncSlots())
	must(t, f.Release())
	end := f.End()
	open := func(t *testing.T) (*File, *awaited) {
		a := &awaited{vfs.OS(), make(map[int64]bool)}
		g, err := Open(a, f.dir, f.Number(), testLog, nil, false)
		must(t, err)
		t.Cleanup(func() { _ = g.Release() })
		return g, a
	}
	check := func(t *testing.T, a *awaited, what string, from, to int64) {
		t.Helper()
		if at := a.missing(from, to); at >= 0 {
			t.Errorf("%s: nobody waited for offset %d of [%d, %d)", what, at, from, to)
		}
	}
	t.Run("scan", func(t *testing.T) {
		g, a := open(t)
		s, err := g.Scan()
		must(t, err)
		check(t, a, "records", DataStart, end)
		must(t, g.Restore(s, DataStart))
		must(t, g.SyncSlots())
		check(t, a, "slots", 0, MaxSlots*SlotBytes)
	})
	t.Run("continue", func(t *testing.T) {
		g, a := open(t)
		must(t, g.Continue(end, true))
		check(t, a, "slots in use", 0, int64(len(es))*SlotBytes)
		wantEntries(t, g, es)
		check(t, a, "records", DataStart, end-touchChunk)
		clear(a.bytes)
		put(t, g, plain(302, 304, 20_000), testDirect)
		check(t, a, "the last page", end&^511, end)
	})
}
