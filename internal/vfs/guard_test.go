package vfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// cutMapping returns a mapping of four pages, of which the file has only one.
func cutMapping(t *testing.T) (m vfs.Mapping, name string) {
	t.Helper()
	f, name := newFile(t, 4*page.Size)
	m = mapped(t, f, 4*page.Size)
	_, err := f.WriteAt([]byte{1}, 0)
	must(t, err)
	must(t, f.Truncate(page.Size))
	return m, name
}

var sink uint32

func TestFaults(t *testing.T) {
	m, name := cutMapping(t)
	mem := m.Bytes()
	guard := func(access func()) func() error {
		return func() error {
			return vfs.Guard(name, mem, func() error { access(); return nil })
		}
	}
	buf := make([]byte, 2*page.Size)
	accesses := []struct {
		name   string
		access func() error
		from   int64 // of the page at which it faults
	}{
		{"store behind the end", guard(func() { mem[2*page.Size+8] = 1 }), 2 * page.Size},
		{"load", guard(func() { sink = uint32(mem[3*page.Size]) }), 3 * page.Size},
		{"copy", guard(func() { copy(buf, mem[:2*page.Size]) }), page.Size},
		{"checksum", guard(func() { sink = page.Sum(0, mem[:4*page.Size]) }), page.Size},
	}
	for _, a := range accesses {
		err := a.access()
		var fault *vfs.FaultError
		if !errors.As(err, &fault) || !errors.Is(err, vfs.ErrFault) {
			t.Errorf("%s: error %v, want a fault", a.name, err)
			continue
		}
		if fault.File != name || fault.Offset < a.from || fault.Offset >= a.from+page.Size {
			t.Errorf("%s: fault at %s, offset %d, want %s in the page at %d", a.name, fault.File, fault.Offset, name, a.from)
		}
		if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), fmt.Sprint(fault.Offset)) {
			t.Errorf("%s: the error names neither file nor offset: %v", a.name, err)
		}
	}
	wantErr(t, m.PopulateRead(2*page.Size, page.Size), vfs.ErrFault)
	must(t, m.PopulateRead(0, page.Size))
}

func TestGuardFaultElsewhere(t *testing.T) {
	m, name := cutMapping(t)
	mem := m.Bytes()
	err := vfs.Guard(name, mem[:page.Size], func() error { sink = uint32(mem[2*page.Size]); return nil })
	var fault *vfs.FaultError
	if !errors.As(err, &fault) || fault.Offset != -1 {
		t.Errorf("error %v, want a fault outside", err)
	}
}

func TestGuardKeepsSetting(t *testing.T) {
	m, name := cutMapping(t)
	mem := m.Bytes()
	fault := func() error { sink = uint32(mem[page.Size]); return nil }
	err := vfs.Guard(name, mem, func() error {
		wantErr(t, vfs.Guard(name, mem, fault), vfs.ErrFault)
		return fault() // still guarded
	})
	wantErr(t, err, vfs.ErrFault)
	if debug.SetPanicOnFault(false) {
		t.Error("Guard left SetPanicOnFault on")
	}
}

func TestGuardPassesResult(t *testing.T) {
	want := errors.New("result")
	for _, result := range []error{nil, want} {
		if err := vfs.Guard("f", nil, func() error { return result }); err != result {
			t.Errorf("error %v, want %v", err, result)
		}
	}
}

func TestGuardPassesPanics(t *testing.T) {
	var none []int
	var null *int
	panics := map[string]func(){
		"a value":              func() { panic("no fault") },
		"an error":             func() { panic(errors.New("no fault")) },
		"an index":             func() { none[len(none)] = 1 },
		"a nil pointer":        func() { *null = 1 },
		"a slice out of range": func() { none = none[1:] },
	}
	for name, f := range panics {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("the panic with %s did not go on", name)
				}
			}()
			err := vfs.Guard("f", make([]byte, 1), func() error { f(); return nil })
			t.Errorf("the panic with %s became the error %v", name, err)
		}()
	}
}

func TestSyncFailed(t *testing.T) {
	tests := []struct {
		err  error
		want bool
	}{
		{nil, false},
		{syscall.EIO, false},
		{&fs.PathError{Op: vfs.OpSync, Err: syscall.EIO}, true},
		{&fs.PathError{Op: vfs.OpMsync, Err: syscall.EIO}, true},
		{&fs.PathError{Op: vfs.OpSyncDir, Err: syscall.ENOSPC}, true},
		{fmt.Errorf("close: %w", &fs.PathError{Op: vfs.OpMsync, Err: syscall.EIO}), true},
		{errors.Join(errors.New("other"), &fs.PathError{Op: vfs.OpSync, Err: syscall.EIO}), true},
		{&fs.PathError{Op: "write", Err: syscall.EIO}, false},
		{&vfs.FaultError{File: "f"}, false},
	}
	for _, test := range tests {
		if got := vfs.SyncFailed(test.err); got != test.want {
			t.Errorf("SyncFailed(%v) = %t", test.err, got)
		}
	}
}
