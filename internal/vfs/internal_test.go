package vfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, size int64) *osFile {
	t.Helper()
	f, err := OS().Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return f.(*osFile)
}

// TestWriteZeros is for file systems that cannot allocate.
func TestWriteZeros(t *testing.T) {
	const size = 3<<20 + 5
	f := create(t, size)
	if err := f.WriteZeros(1, size-1, 4096); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Size(); n != size || err != nil {
		t.Errorf("size %d, error %v, want %d", n, err, size)
	}
	_ = f.Close()
	if err := f.WriteZeros(0, 1, 1); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want %v", err, os.ErrClosed)
	}
}

// TestWriteDirect: what goes around the page cache is in the mapping, and the other way round,
// and does not go there again where the system refuses it.
func TestWriteDirect(t *testing.T) {
	const size = 16 * 4096
	ways := map[string]func(f *osFile){
		"around the cache":  func(*osFile) {},
		"there is no way":   func(f *osFile) { f.direct.opening.Do(func() {}) },
		"refused from once": func(f *osFile) { f.direct.open(f.File); f.direct.refused.Store(true) },
	}
	for name, prepare := range ways {
		f := create(t, size)
		prepare(f)
		m, err := f.Map(size)
		must(t, err)
		p := Aligned(2 * 4096)
		for round := range byte(5) {
			for k := range p {
				p[k] = byte(k) + round
			}
			off := int64(round) * 4096 // each page twice
			must(t, f.WriteDirect(p, off))
			if !bytes.Equal(m.Bytes()[off:off+2*4096], p) {
				t.Errorf("%s: round %d: the mapping has something else", name, round)
			}
			must(t, f.writeAll([]byte("stored"), off+4096))
			must(t, f.WriteZeros(off, 4096, Direct))
			if got := m.Bytes()[off:]; got[0] != 0 || got[1000] != 0 || got[4095] != 0 || string(got[4096:4102]) != "stored" {
				t.Errorf("%s: round %d: zeros were not written, or too many", name, round)
			}
		}
		must(t, m.Close())
		must(t, f.Close())
		if err := f.WriteDirect(p, 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: closed: error %v, want %v", name, err, os.ErrClosed)
		}
	}
	f := create(t, size)
	p := Aligned(8192)[1:4097] // not aligned: the system refuses it, if it can go around at all
	p[0], p[4095] = 1, 2
	must(t, f.WriteDirect(p, 4096))
	got := make([]byte, 4096)
	if _, err := f.ReadAt(got, 4096); err != nil || !bytes.Equal(got, p) {
		t.Errorf("what was refused was not written; error %v", err)
	}
	if f.direct.open(f.File) {
		t.Log("the file system takes memory that is not aligned")
	}
}

// TestDirectFails: what finds no space around the page cache goes through it; other errors
// are told, and nothing is written.
func TestDirectFails(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err) // darwin has none
	}
	defer full.Close()
	f := create(t, 4096)
	f.direct.opening.Do(func() { f.direct.file = full })
	p := Aligned(4096)
	p[7] = 7
	must(t, f.WriteDirect(p, 0))
	got := make([]byte, 4096)
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("what found no space was not written; error %v", err)
	}
	if _, err := f.writeDirect(p, 0); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v, want %v", err, unix.ENOSPC)
	}
	must(t, full.Close())
	p[7] = 8
	if err := f.WriteDirect(p, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v, want %v", err, os.ErrClosed)
	}
	if _, err := f.ReadAt(got, 0); err != nil || got[7] != 7 {
		t.Errorf("%d was written, error %v", got[7], err)
	}
}

// TestDirectDescriptor: the second descriptor goes with the first.
func TestDirectDescriptor(t *testing.T) {
	for name, end := range map[string]func(f *osFile) error{"close": (*osFile).Close, "detach": (*osFile).Detach} {
		f := create(t, 4096)
		must(t, f.WriteDirect(Aligned(4096), 0))
		must(t, end(f))
		if d := f.direct.file; d != nil && mappingsStandAlone {
			if _, err := d.Stat(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: error %v of the second descriptor, want %v", name, err, os.ErrClosed)
			}
		}
	}
}

func TestPages(t *testing.T) {
	size := int64(os.Getpagesize())
	m := &osMapping{mem: make([]byte, 3*size)}
	tests := []struct{ off, n, want int64 }{
		{0, 1, size}, {0, size, size}, {1, size, 2 * size}, {size - 1, 2, 2 * size}, {2 * size, size, size}, {size, 0, 0},
	}
	for _, test := range tests {
		if got := int64(len(m.pages(test.off, test.n))); got != test.want {
			t.Errorf("pages(%d, %d) are %d bytes, want %d", test.off, test.n, got, test.want)
		}
	}
}

func TestRetryEINTR(t *testing.T) {
	calls := 0
	err := retryEINTR(func() error {
		if calls++; calls < 3 {
			return unix.EINTR
		}
		return unix.EIO
	})
	if calls != 3 || !errors.Is(err, unix.EIO) {
		t.Errorf("%d calls, error %v", calls, err)
	}
}
