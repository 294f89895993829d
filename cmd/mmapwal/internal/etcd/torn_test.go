package etcd

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestTorn: whatever sectors of the last write did not reach the disk, the entries
// in front of it are there, and what is dropped is said.
func TestTorn(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 1800)
	m := newMaker(t)
	m.snapshot(0, 0)
	for i := range uint64(3) {
		m.entry(i+1, 1, data[:100])
	}
	m.state(1, 3)
	start := len(m.file)
	path := m.entry(4, 1, data).state(1, 4).write(t)
	whole, err := os.ReadFile(path)
	must(t, err)
	first, last := start/sectorBytes, (len(m.file)-1)/sectorBytes
	if last-first < 3 {
		t.Fatalf("sectors %d to %d", first, last)
	}
	for lost := 1; lost < 1<<(last-first+1); lost++ {
		p := bytes.Clone(whole)
		for k := first; k <= last; k++ {
			if lost>>(k-first)&1 != 0 {
				clear(p[max(start, k*sectorBytes):min(len(m.file), (k+1)*sectorBytes)])
			}
		}
		must(t, os.WriteFile(path, p, 0o600))
		l, err := Open(m.dir)
		must(t, err)
		want := uint64(3)
		if lost == 1<<(last-first) && len(m.file)-last*sectorBytes <= 24 { // the hard state only
			want = 4
		}
		if l.Last != want || l.HardState.GetCommit() > want {
			t.Errorf("lost %b: entries to %d, commit %d", lost, l.Last, l.HardState.GetCommit())
		}
		if left := len(bytes.TrimRight(p, "\x00")); left > start && want == 3 &&
			l.Torn != (Torn{File: path, Offset: int64(start), Bytes: int64(left - start)}) {
			t.Errorf("lost %b: %+v", lost, l.Torn)
		}
	}
}

// TestTornAtEndOfFile: the file grew in the write, and the new size was lost.
func TestTornAtEndOfFile(t *testing.T) {
	m := newMaker(t)
	m.snapshot(0, 0).entry(1, 1, []byte("x")).state(1, 1)
	start := len(m.file)
	path := m.entry(2, 1, bytes.Repeat([]byte("y"), 700)).write(t)
	for size := start + 1; size < len(m.file); size++ {
		must(t, os.WriteFile(path, m.file[:size], 0o600))
		l, err := Open(m.dir)
		must(t, err)
		if l.Last != 1 || l.Torn.File != path || l.Torn.Offset != int64(start) {
			t.Errorf("size %d of %d: entries to %d, torn %+v", size, len(m.file), l.Last, l.Torn)
		}
	}
}

// TestFlips: no flipped bit leads to other entries than etcd wrote, nor is it taken
// for a torn write, unless it is one of a record's type, which no checksum covers.
func TestFlips(t *testing.T) {
	for _, name := range []string{"small", "snapshot", "from-leader"} {
		t.Run(name, func(t *testing.T) {
			dir, want := sample(t, name)
			names, err := filepath.Glob(filepath.Join(dir, "wal", "*.wal"))
			must(t, err)
			for _, path := range names {
				flipAll(t, dir, path, want)
			}
		})
	}
}

// flipAll flips a bit of each byte in use of a file, another one for each.
func flipAll(t *testing.T, dir, path, want string) {
	t.Helper()
	whole, err := os.ReadFile(path)
	must(t, err)
	types := map[int]bool{}
	for at := 0; ; {
		r, err := decode(whole, at)
		if err != nil {
			break
		}
		types[at+lengthBytes+1] = true
		at = r.end
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	put := func(at int, b byte) {
		_, err := f.WriteAt([]byte{b}, int64(at))
		must(t, err)
	}
	refused := 0
	for at, b := range bytes.TrimRight(whole, "\x00") {
		put(at, b^1<<(at*5%8))
		l, err := Open(dir)
		if err != nil {
			refused++
		} else if got, err := contents(t, l); (err != nil || got != want || l.Torn != Torn{}) && !types[at] {
			t.Errorf("%s, offset %d: %v, torn %+v, read\n%s", filepath.Base(path), at, err, l.Torn, got)
		}
		put(at, b)
	}
	if refused == 0 {
		t.Errorf("%s: nothing was refused", path)
	}
}
