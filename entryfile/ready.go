package entryfile

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// A place in a file is ready if a sync of what is written there costs no more than it must: it
// has blocks that were written before, so that the sync changes no metadata of the file
// system. Records can be written where it is not ready, only slower. If each append is not
// synced, nothing is made ready.

const (
	// readyChunk is how much is made ready at once, in bytes: little enough that a Save
	// beside it hardly waits for the disk. directChunk is the same where records go around
	// the page cache, which are many.
	readyChunk  = 256 << 10
	directChunk = 1 << 20
	// zeroPiece is how many zeros are written at once, in bytes: what the writer writes
	// through the page cache, too, waits for so many; what it writes the other way, for a
	// readyChunk.
	zeroPiece = 16 << 10
)

// Ready returns how many bytes of records can be appended where the file is ready.
func (f *File) Ready() int64 { return f.ready.Load() - f.end.Load() }

// Outrun reports whether the last Reserve asked for more than is ready. It is the
// writer's.
func (f *File) Outrun() bool { return f.outrun }

// Free returns how many bytes of records, and how many entries, the file still takes.
func (f *File) Free() (bytes int64, entries int) {
	return f.header.Size - f.end.Load(), MaxSlots - int(f.index.Len())
}

// Expected returns about how many bytes of records are still to come, if entries go
// on as they are.
func (f *File) Expected() int64 {
	bytes, entries := f.Free()
	if n := int64(f.index.Len()); n > 0 {
		bytes = min(bytes, (f.end.Load()-DataStart)/n*int64(entries))
	}
	return bytes
}

// Ahead reports whether there is nothing to be made ready as far ahead as that: it is, or
// the writer was given room there, or the file ends there or takes no more records; or it need
// not be ready.
func (f *File) Ahead(bytes int64) bool {
	return bytes == 0 || !f.synced || f.Sealed() || f.taken.Load() >= min(f.end.Load()+bytes, f.header.Size)
}

// ReadyAhead makes a chunk of the file ready, unless it is Ahead. After an error nothing
// has changed that matters; after that of a sync see Sync.
func (f *File) ReadyAhead(bytes int64) error {
	f.readying.Lock()
	defer f.readying.Unlock()
	if f.Ahead(bytes) {
		return nil
	}
	if f.beside == nil {
		var err error
		if f.beside, err = f.openBeside(); err != nil {
			return err
		}
	}
	from, to, err := f.zeroAhead(bytes)
	if err != nil || from == to {
		return err
	}
	if err := f.beside.mem.Sync(from, to-from); err != nil {
		f.broken.CompareAndSwap(nil, &err) // records of the writer may be among what was not written
		return err
	}
	f.ready.Store(to)
	return nil
}

// zeroAhead writes zeros to a chunk that the writer has not taken, and returns it.
func (f *File) zeroAhead(bytes int64) (from, to int64, err error) {
	f.growing.Lock()
	defer f.growing.Unlock()
	from = f.taken.Load()
	if f.Ahead(bytes) {
		return from, from, nil
	}
	chunk := int64(readyChunk)
	if f.direct.Load() {
		chunk = directChunk
	}
	to = min(from+chunk, f.header.Size)
	if err := f.growTo(to); err != nil {
		return from, from, err
	}
	if err := f.checkLength(f.file); err != nil {
		return from, from, err
	}
	if err := f.writeZeros(from, to-from); err != nil {
		return from, from, err
	}
	f.taken.Store(to)
	return from, to, nil
}

// writeZeros writes zeros as the writer writes its records.
func (f *File) writeZeros(from, n int64) error {
	direct, piece := f.direct.Load(), int64(zeroPiece)
	if direct {
		piece = vfs.Direct
	}
	for to := from + n; from < to; from += readyChunk {
		f.ways.begin(direct)
		err := f.file.WriteZeros(from, min(to-from, readyChunk), piece)
		f.ways.end()
		if err != nil {
			return err
		}
	}
	return nil
}

// beside is the file opened once more. The kernel tells an error of writing once for
// each opening: the sync that makes the file ready must not take it from the one that
// the writer waits for.
type beside struct {
	file vfs.File
	mem  vfs.Mapping
}

func (f *File) openBeside() (*beside, error) {
	file, err := f.fsys.Open(f.path, false)
	if err != nil {
		return nil, err
	}
	m, err := file.Map(f.header.Size)
	if err == nil {
		err = file.Detach()
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &beside{file, m}, nil
}

func (f *File) closeBeside() error {
	f.readying.Lock()
	defer f.readying.Unlock()
	b := f.beside
	if b == nil {
		return nil
	}
	f.beside = nil
	return errors.Join(b.mem.Close(), b.file.Close())
}

// Reads of a file that takes no more records, or whose records went around the page cache, may
// have to wait for the disk. A fault
// would keep the thread, and with it other goroutines, so the pages are asked for by a
// system call first: a chunk of touchChunk bytes at a time, or touchAhead of them where
// the one before was read, too; each once.
const (
	touchChunk = 64 << 10
	touchAhead = 4
)

// touch asks for the pages of [at, at+n), n > 0, unless that was done. What cannot be had is
// left to the access itself to find out.
func (f *File) touch(at, n int64) {
	touched := f.touched.Load()
	if touched == nil {
		return
	}
	written := f.end.Load() / touchChunk // chunks before it are not written to any more
	if f.Sealed() {
		written++
	}
	for c := at / touchChunk; c <= (at+max(n, 1)-1)/touchChunk; c++ {
		if c < written && touched.add(c) {
			continue
		}
		chunks := int64(1)
		for c > 0 && touched.has(c-1) && chunks < touchAhead && c+chunks < written && !touched.add(c+chunks) {
			chunks++
		}
		_ = (*f.mem.Load()).PopulateRead(c*touchChunk, chunks*touchChunk)
	}
}

// startTouching has reads ask for pages from now on.
func (f *File) startTouching() {
	touched := make(chunks, f.header.Size/touchChunk/32+1)
	f.touched.Store(&touched)
}

// chunks is a set of chunks of a file. It may be used concurrently.
type chunks []atomic.Uint32

// add reports whether the chunk c was in the set, or is beyond the file.
func (s chunks) add(c int64) bool {
	if c/32 >= int64(len(s)) {
		return true
	}
	word, bit := &s[c/32], uint32(1)<<(c%32)
	return word.Load()&bit != 0 || word.Or(bit)&bit != 0
}

func (s chunks) has(c int64) bool { return s[c/32].Load()&(1<<(c%32)) != 0 }

// SpareSuffix ends the names of files whose entries are dead, and that are kept to
// be used again.
const SpareSuffix = ".spare"

// SpareName returns the name that the file with that number has as a spare.
func SpareName(number uint64) string { return fmt.Sprintf("%05d%s", number, SpareSuffix) }

// Unpublish makes a file without records a spare one, durably, and closes it.
func (f *File) Unpublish() error {
	err := f.fsys.Rename(f.path, filepath.Join(f.dir, SpareName(f.header.Number)))
	if err == nil {
		err = f.fsys.SyncDir(f.dir)
	}
	return errors.Join(err, f.Release())
}

// ErrUnfit: the spare file has another size than the one that is to be made of it, or may
// hold plaintext where that is to be encrypted.
var ErrUnfit = errors.New("the spare file does not fit")

// Reuse is Prepare that begins with a spare file, which it takes the name from. On an
// error that is gone, or a spare still. What the file held never counts as a record:
// the salt is another. ErrUnfit.
func Reuse(fsys vfs.Files, dir, spare string, spec Spec, dataBytes int64) (_ *File, err error) {
	f, err := newFile(fsys, dir, &spec)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(dir, spare)
	if f.file, err = fsys.Open(name, false); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Release()
		}
	}()
	if spec.Direct {
		f.file.CanDirect() // as Prepare does
	}
	size, err := f.file.Size()
	if err != nil {
		return nil, err
	}
	if size != f.header.Size {
		return nil, fmt.Errorf("%s: %w: %d bytes instead of %d", name, ErrUnfit, size, f.header.Size)
	}
	if spec.Keys != nil && !wasEncrypted(f.file) {
		return nil, fmt.Errorf("%s: %w: it is not encrypted, and what it holds would stay", name, ErrUnfit)
	}
	if err := f.clean(leftIn(f.file)); err != nil {
		return nil, err
	}
	if err := f.reserve(dataBytes); err != nil {
		return nil, err
	}
	if err := f.file.Sync(); err != nil {
		return nil, err
	}
	if err := fsys.Rename(name, f.temporary()); err != nil {
		return nil, err
	}
	f.file.Renamed(f.temporary())
	return f, nil
}

// wasEncrypted reports whether a spare file was encrypted in its last life. No file of an
// encrypted log is made of another: so nothing of it was ever in clear.
func wasEncrypted(file vfs.File) bool {
	pages, _, errs := readHeaders(file)
	for k, err := range errs {
		if err == nil && len(pages[k].WrappedKey) == 0 {
			return false
		}
	}
	return errs[0] == nil || errs[1] == nil
}

// leftIn returns up to where the data region of a spare file has blocks that were written
// before, whole pages, and behind how many slots all are zero.
func leftIn(file vfs.File) (written int64, slots uint64) {
	pages, _, errs := readHeaders(file)
	if errs[0] != nil || errs[1] != nil || !pages[0].Sealed && !pages[1].Sealed {
		return DataStart, MaxSlots
	}
	punched := false
	for _, h := range pages {
		written, slots = max(written, roundUp(h.Seal.End, page.Size)), max(slots, h.Seal.Count)
		punched = punched || h.Seal.Punched > DataStart
	}
	if punched {
		written = DataStart
	}
	return max(written, DataStart), slots
}

// clean makes a spare file an empty one, of one header page. Its data region was written
// up to the offset written, and that many slots. Those stay until the file is sealed or closed:
// their checksums hold with the salt of then only.
func (f *File) clean(written int64, slots uint64) error {
	f.header.Reused, f.slots = true, slotState{used: slots}
	if err := f.file.Reserve(0, written); err != nil { // none may be missing
		return err
	}
	f.reserved.Store(written)
	f.ready.Store(written)
	f.taken.Store(written)
	if _, err := f.memory(); err != nil {
		return err
	}
	return f.makeHeader() // zero or not: the disk may hold another
}
