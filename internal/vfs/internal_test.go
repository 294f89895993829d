package vfs

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

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

// TestTouch is for systems that cannot populate.
func TestTouch(t *testing.T) {
	size := 4 * int64(os.Getpagesize())
	f := create(t, size)
	m, err := f.Map(size)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	content := bytes.Repeat([]byte{9}, int(size))
	if err := m.Store(0, content); err != nil {
		t.Fatal(err)
	}
	if err := m.(*osMapping).touch(m.Bytes()); err != nil || !bytes.Equal(m.Bytes(), content) {
		t.Errorf("touch: error %v, content the same: %t", err, bytes.Equal(m.Bytes(), content))
	}
	if err := f.Truncate(size / 2); err != nil {
		t.Fatal(err)
	}
	if err := m.(*osMapping).touch(m.Bytes()); !errors.Is(err, ErrFault) {
		t.Errorf("error %v, want %v", err, ErrFault)
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
