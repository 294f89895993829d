package vfs

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"unsafe"
)

// FaultError says which page of which file the kernel could not back.
type FaultError struct {
	File   string
	Offset int64 // of the access in the file, in bytes; -1 if it lies outside
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("%s: offset %d: %v (the disk is failing, or the file was cut short)", e.File, e.Offset, ErrFault)
}

// Unwrap makes errors.Is(err, ErrFault) true.
func (e *FaultError) Unwrap() error { return ErrFault }

// Guard runs access, which reads mem, the mapped memory of the named
// file. A memory fault on the way becomes a *FaultError instead of killing the
// process; any other panic goes on.
func Guard(name string, mem []byte, access func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = faultError(name, mem, r)
		}
	}()
	return access()
}

// faultError turns a recovered memory fault into an error, and panics again
// with anything else.
func faultError(name string, mem []byte, recovered any) error {
	runtimeErr, ok := recovered.(runtime.Error)
	if !ok {
		panic(recovered)
	}
	fault, ok := runtimeErr.(interface{ Addr() uintptr })
	if !ok {
		panic(recovered)
	}
	offset := int64(fault.Addr()) - int64(uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
	if offset < 0 || offset >= int64(len(mem)) {
		offset = -1
	}
	return &FaultError{File: name, Offset: offset}
}
