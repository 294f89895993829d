package fuzz

import (
	"errors"
	"io"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// disk is a file system whose one file is always the same memory.
type disk struct {
	vfs.FS // what is not below is not called
	mem    []byte
}

func (d disk) Open(string, bool) (vfs.File, error) { return diskFile{mem: d.mem}, nil }

type diskFile struct {
	vfs.File
	mem []byte
}

func (f diskFile) Size() (int64, error)           { return int64(len(f.mem)), nil }
func (f diskFile) Map(int64) (vfs.Mapping, error) { return diskFile{mem: f.mem}.mapping(), nil }
func (f diskFile) Punch(int64, int64) error       { return errors.ErrUnsupported }
func (f diskFile) Data(at int64) (int64, int64, error) {
	return at, max(at, int64(len(f.mem))), nil
}

func (f diskFile) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, f.mem[min(off, int64(len(f.mem))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f diskFile) WriteAt(p []byte, off int64) (int, error) { return copy(f.mem[off:], p), nil }

func (f diskFile) Detach() error        { return nil }
func (f diskFile) Close() error         { return nil }
func (f diskFile) mapping() vfs.Mapping { return diskMapping(f.mem) }

type diskMapping []byte

func (m diskMapping) Bytes() []byte                   { return m }
func (m diskMapping) Prefetch(int64, int64)           {}
func (m diskMapping) PopulateRead(int64, int64) error { return nil }
func (m diskMapping) Sync(int64, int64) error         { return nil }
func (m diskMapping) Close() error                    { return nil }
