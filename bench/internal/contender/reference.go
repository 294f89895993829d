package contender

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// referenceBytes is the size of the file, or of the memory, that the reference writes
// over and over again.
const referenceBytes = 32 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// reference writes what a log has to write, in the plainest way, and is no log: it forgets
// what it has overwritten, and everything when it is closed. It is no lower bound: a log
// that writes around the page cache does without a copy.
func reference() Contender {
	return Contender{
		Name:  Reference,
		About: "pwrite and fdatasync of the same bytes, in place; not synced, and reads: a copy and a CRC in memory",
		Terms: true,
		Open:  openReference,
	}
}

type referenceLog struct {
	file *os.File // nil: in memory only
	buf  []byte
	end  int // of what was written, in buf
	sum  uint32

	first uint64 // index of the first entry in buf
	ends  []int  // where the entries from first on end
	out   []byte // what was read
}

func openReference(dir string, o Options) (Log, error) {
	f := &referenceLog{buf: make([]byte, referenceBytes), ends: make([]int, 0, referenceBytes/128)}
	for k := range f.buf {
		f.buf[k] = 1 // so that the pages are there
	}
	if o.NoSync {
		return f, nil
	}
	file, err := writtenFile(filepath.Join(dir, "reference"), f.buf)
	if err != nil {
		return nil, err
	}
	f.file = file
	return f, nil
}

// writtenFile makes a file whose blocks are on the disk already.
func writtenFile(path string, content []byte) (*os.File, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err = file.Write(content); err == nil {
		err = file.Sync()
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// Append implements Log.
func (f *referenceLog) Append(es []*raftpb.Entry) error {
	from := f.gather(es)
	written := f.buf[from:f.end]
	if f.file == nil {
		f.sum = crc32.Update(f.sum, castagnoli, written)
		return nil
	}
	if _, err := f.file.WriteAt(written, int64(from)); err != nil {
		return err
	}
	return unix.Fdatasync(int(f.file.Fd()))
}

// gather copies the data of es to the end of buf, or to its start if they do not
// fit there, and returns where they begin.
func (f *referenceLog) gather(es []*raftpb.Entry) int {
	size := 0
	for _, e := range es {
		size += len(e.GetData())
	}
	if f.end+size > len(f.buf) || len(f.ends) == 0 {
		f.end, f.ends, f.first = 0, f.ends[:0], es[0].GetIndex()
	}
	from := f.end
	for _, e := range es {
		f.end += copy(f.buf[f.end:], e.GetData())
		f.ends = append(f.ends, f.end)
	}
	return from
}

// Read implements Log.
func (f *referenceLog) Read(lo, hi uint64, visit func(data []byte)) error {
	if lo < f.first || hi > f.first+uint64(len(f.ends)) {
		return fmt.Errorf("reference: [%d, %d) is not in memory", lo, hi)
	}
	start := f.start(lo)
	f.out = append(f.out[:0], f.buf[start:f.start(hi)]...)
	f.sum = crc32.Update(f.sum, castagnoli, f.out)
	for i := lo; i < hi; i++ {
		visit(f.out[f.start(i)-start : f.start(i+1)-start])
	}
	return nil
}

// Term implements Terms, with eight bytes from where the entry is.
func (f *referenceLog) Term(i uint64) (uint64, error) {
	return binary.LittleEndian.Uint64(f.buf[f.start(i):]), nil
}

// start returns where entry i begins in buf.
func (f *referenceLog) start(i uint64) int {
	if i == f.first {
		return 0
	}
	return f.ends[i-f.first-1]
}

// Close implements Log.
func (f *referenceLog) Close() error {
	if f.file == nil {
		return nil
	}
	return f.file.Close()
}
