package contender

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/bench/internal/device"
	"go.etcd.io/raft/v3/raftpb"
)

// entries returns entries [lo, hi) of different lengths.
func entries(lo, hi uint64) []*raftpb.Entry {
	var es []*raftpb.Entry
	for i := lo; i < hi; i++ {
		es = append(es, &raftpb.Entry{Index: new(i), Term: new(uint64(1)), Data: data(i)})
	}
	return es
}

func data(i uint64) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("entry %d;", i)), int(i%7)+1)
}

func eachContender(t *testing.T, test func(t *testing.T, c Contender, o Options)) {
	for _, c := range All() {
		for _, o := range []Options{{}, {NoSync: true}} {
			t.Run(fmt.Sprintf("%s/NoSync=%t", c.Name, o.NoSync), func(t *testing.T) { test(t, c, o) })
		}
	}
}

func open(t *testing.T, c Contender, dir string, o Options) Log {
	t.Helper()
	l, err := c.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendAll(t *testing.T, l Log, es []*raftpb.Entry) {
	t.Helper()
	if err := l.Append(es); err != nil {
		t.Fatal(err)
	}
}

func closeLog(t *testing.T, l Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// checkRange reads the entries [lo, hi) and compares them with what was stored.
func checkRange(t *testing.T, c Contender, l Log, lo, hi uint64) {
	t.Helper()
	next := lo
	err := l.Read(lo, hi, func(got []byte) {
		if !bytes.Equal(got, data(next)) {
			t.Errorf("entry %d reads %q, want %q", next, got, data(next))
		}
		next++
	})
	if c.WriteOnly {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a log that cannot read: %v", err)
		}
		return
	}
	if err != nil || next != hi {
		t.Errorf("entries [%d, %d): read up to %d, %v", lo, hi, next, err)
	}
}

func TestReadsWhatWasSaved(t *testing.T) {
	eachContender(t, func(t *testing.T, c Contender, o Options) {
		l := open(t, c, t.TempDir(), o)
		defer closeLog(t, l)
		for _, r := range [][2]uint64{{1, 2}, {2, 18}, {18, 274}, {274, 400}} {
			appendAll(t, l, entries(r[0], r[1]))
		}
		checkRange(t, c, l, 1, 400)
		checkRange(t, c, l, 17, 19)
		checkRange(t, c, l, 399, 400)
	})
}

func TestReopen(t *testing.T) {
	eachContender(t, func(t *testing.T, c Contender, o Options) {
		if c.Name == Reference {
			t.Skip("the reference forgets")
		}
		dir := t.TempDir()
		l := open(t, c, dir, o)
		appendAll(t, l, entries(1, 100))
		closeLog(t, l)

		l = open(t, c, dir, o)
		defer closeLog(t, l)
		checkRange(t, c, l, 1, 100)
		appendAll(t, l, entries(100, 200))
		checkRange(t, c, l, 1, 200)
	})
}

// TestFlushes: what is durable has reached the disk before Append returns.
func TestFlushes(t *testing.T) {
	dir := t.TempDir()
	d, err := device.Of(dir)
	if errors.Is(err, device.ErrNoCounters) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range All() {
		t.Run(c.Name, func(t *testing.T) {
			sub := filepath.Join(dir, c.Name)
			if err := os.Mkdir(sub, 0o700); err != nil {
				t.Fatal(err)
			}
			l := open(t, c, sub, Options{})
			defer closeLog(t, l)
			appendAll(t, l, entries(1, 2))
			const saves = 20
			if n := flushes(t, d, l, saves); n < saves {
				t.Errorf("%d durable saves took %d flushes", saves, n)
			}
		})
	}
}

// flushes returns how many flushes the device counts while n entries are appended.
func flushes(t *testing.T, d *device.Device, l Log, n uint64) uint64 {
	t.Helper()
	before, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		appendAll(t, l, entries(i+2, i+3))
	}
	after, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	return after.Sub(before).Flushes
}

// TestReferenceWraps: the reference overwrites what it wrote first.
func TestReferenceWraps(t *testing.T) {
	c := reference()
	l := open(t, c, t.TempDir(), Options{NoSync: true})
	defer closeLog(t, l)
	const size = referenceBytes/4 - 1
	for i := uint64(1); i <= 6; i++ {
		appendAll(t, l, []*raftpb.Entry{{Index: new(i), Term: new(uint64(1)), Data: bytes.Repeat([]byte{byte(i)}, size)}})
	}
	if err := l.Read(4, 5, func([]byte) {}); err == nil {
		t.Error("entry 4 is still there")
	}
	next := byte(5)
	err := l.Read(5, 7, func(got []byte) {
		if len(got) != size || got[0] != next || got[size-1] != next {
			t.Errorf("entry %d is wrong", next)
		}
		next++
	})
	if err != nil || next != 7 {
		t.Errorf("read up to %d, %v", next, err)
	}
}

// checkKind: a contender can do what it says.
func checkKind(t *testing.T, c Contender) {
	t.Helper()
	l := open(t, c, t.TempDir(), Options{})
	defer closeLog(t, l)
	appendAll(t, l, entries(1, 100))
	if a, ok := l.(Async); ok != c.Ours {
		t.Errorf("%s: Ours is %t", c.Name, c.Ours)
	} else if ok {
		done := make(chan error)
		a.AppendAsync(entries(100, 101), func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Errorf("%s: AppendAsync: %v", c.Name, err)
		}
	}
	if c.Terms {
		if term, err := l.(Terms).Term(50); err != nil || c.Name != Reference && term != 1 {
			t.Errorf("%s: entry 50 has term %d, %v", c.Name, term, err)
		}
	}
	if k, ok := l.(Compacter); ok != c.Compacts {
		t.Errorf("%s: Compacts is %t", c.Name, c.Compacts)
	} else if ok {
		if err := k.Compact(60); err != nil {
			t.Errorf("%s: Compact: %v", c.Name, err)
		}
		if err := l.Read(60, 61, func([]byte) {}); err == nil && c.Ours {
			t.Errorf("%s: entry 60 is still there", c.Name)
		}
		checkRange(t, c, l, 61, 100)
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range All() {
		if c.Name == "" || c.About == "" || seen[c.Name] {
			t.Errorf("%+v has no name, no description or another's name", c)
		}
		seen[c.Name] = true
		checkKind(t, c)
	}
	if !seen[Reference] || !seen[Ours] {
		t.Error("the reference or this log is missing")
	}
}
