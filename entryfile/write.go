package entryfile

import (
	"slices"
	"sync"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

const (
	// maxSmall is how many bytes a record has at most that is collected in one piece.
	maxSmall = page.Size
	// maxOut is how many bytes of records are collected before they are written.
	maxOut = 32 << 10
	// startStep is after how many bytes the disk begins to write a large Save,
	// while the rest of it is collected.
	startStep = 128 << 10
	// minDirect is from how many bytes of records on that are synced at once it pays to
	// write them around the page cache.
	minDirect = 16 << 10
)

// begin prepares for so many bytes of records that are going to be stored at the end, around
// the page cache if they are many, but no more than maxDirect.
func (f *File) begin(bytes, end, maxDirect int64) (err error) {
	f.started = end
	direct := f.synced && bytes >= minDirect && bytes <= maxDirect && f.Unsynced() == 0 && f.file.CanDirect()
	f.direct.Store(direct)
	head := f.unfinished
	if direct && head == nil {
		if head, err = f.lastPage(end); err != nil {
			return err
		}
	}
	if !direct {
		bytes = min(bytes, maxOut)
	} else if f.touched.Load() == nil {
		f.startTouching()
	}
	f.room = int64(len(head)) + bytes
	f.makeOut(direct)
	f.out = append(f.out, head...)
	f.unfinished = nil
	return nil
}

// makeOut makes f.out empty, with memory for what is going to be collected there. What goes
// around the page cache begins and ends with a page.
func (f *File) makeOut(direct bool) {
	n := roundUp(f.room, page.Size)
	if !direct {
		f.out = slices.Grow(f.out[:0], int(n+page.Size)) // the last page is written as a whole
		return
	}
	if int64(cap(f.out)) < n || !vfs.IsAligned(f.out) {
		f.out = vfs.Aligned(int(n + page.Size)) // the next one may begin elsewhere in a page
	}
	f.out = f.out[:0]
}

// lastPage returns what the file holds of the page in which the offset end is, up to there.
func (f *File) lastPage(end int64) (head []byte, err error) {
	err = f.guard(func(mem []byte) error {
		f.await(end&^(page.Size-1), page.Size)
		head = f.buf[:copy(f.buf[:], mem[end&^(page.Size-1):end])]
		return nil
	})
	return head, err
}

// storeRecord stores a record at the end: a small one in one piece, the payload of a large
// one from where it is.
func (f *File) storeRecord(r *record, data []byte, at int64) error {
	total := r.bytes()
	if total > maxSmall {
		return f.storeLarge(r, data, at)
	}
	if int64(len(f.out))+total > f.room {
		if err := f.flush(at); err != nil {
			return err
		}
	}
	n := int64(len(f.out))
	f.out = f.out[:n+total]
	p := f.out[n:]
	used := RecordHeaderBytes + int64(r.payload)
	r.encode(p)
	payload, err := f.secret.seal(p[RecordHeaderBytes:used:used], at, data, p[:RecordHeaderBytes])
	if err != nil {
		return err
	}
	copy(p[RecordHeaderBytes:], payload)
	clear(p[used:])
	sealRecord(p[:used], nil, f.header.Salt)
	return nil
}

func (f *File) storeLarge(r *record, data []byte, at int64) error {
	p := f.buf[:RecordHeaderBytes]
	r.encode(p)
	payload, err := f.secret.seal(nil, at, data, p)
	if err != nil {
		return err
	}
	sealRecord(p, payload, f.header.Salt)
	if err := f.put(at, p); err != nil {
		return err
	}
	if err := f.put(at+RecordHeaderBytes, payload); err != nil {
		return err
	}
	used := RecordHeaderBytes + int64(r.payload)
	clear(f.buf[:recordAlign])
	return f.put(at+used, f.buf[:r.bytes()-used])
}

// put collects p, for the offset at, behind what was put before. The whole pages of what is
// large go on their way at once.
func (f *File) put(at int64, p []byte) error {
	if len(p) >= maxOut && !f.direct.Load() {
		n := roundUp(at, page.Size) - at
		if err := f.collect(at, p[:n]); err != nil {
			return err
		}
		if err := f.flush(at + n); err != nil {
			return err
		}
		p, at = p[n:], at+n
		n = int64(len(p)) &^ (page.Size - 1)
		if err := f.write(p[:n], at); err != nil {
			return err
		}
		p, at = p[n:], at+n
	}
	return f.collect(at, p)
}

func (f *File) collect(at int64, p []byte) error {
	for len(p) > 0 {
		if int64(len(f.out)) == f.room {
			if err := f.flush(at); err != nil {
				return err
			}
		}
		n := min(int(f.room)-len(f.out), len(p))
		f.out = append(f.out, p[:n]...)
		p, at = p[n:], at+int64(n)
	}
	return nil
}

// flush writes the whole pages of what was collected, which ends at the offset end.
func (f *File) flush(end int64) error {
	from := end - int64(len(f.out))
	n := max(end&^(page.Size-1)-from, 0)
	err := f.write(f.out[:n], from)
	f.out = f.out[:copy(f.out, f.out[n:])]
	return err
}

// finish writes the rest of what was collected, which ends at the offset end.
func (f *File) finish(end int64) error {
	rest, from := f.out, end-int64(len(f.out))
	last := end &^ (page.Size - 1)
	if f.direct.Load() {
		f.unfinished = rest[last-from:]
	}
	if from <= last {
		// The page that begins here is written as a whole, or the system would read it first
		// unless it is in the cache.
		rest = rest[:roundUp(end, page.Size)-from]
		clear(rest[end-from:])
	}
	f.out = f.out[:0]
	return f.write(rest, from)
}

// write writes p to the file, or around the page cache if it is much that is synced at once:
// that takes no copies, and no pages.
func (f *File) write(p []byte, at int64) error {
	if len(p) == 0 {
		return nil
	}
	if !f.synced { // then there is one way
		_, err := f.file.WriteAt(p, at)
		return err
	}
	direct := f.direct.Load()
	f.ways.begin(direct)
	defer f.ways.end()
	if direct {
		return f.file.WriteDirect(p, at)
	}
	return f.writeAndStart(p, at)
}

// writeAndStart writes p, and has the disk start on it if it is much. Pages are started on only
// when they are full, or the disk would write them twice.
func (f *File) writeAndStart(p []byte, at int64) error {
	for len(p) > 0 {
		n := min(len(p), startStep)
		if _, err := f.file.WriteAt(p[:n], at); err != nil {
			return err
		}
		p, at = p[n:], at+int64(n)
		if at-f.started >= startStep {
			from, to := f.started&^(page.Size-1), at&^(page.Size-1)
			f.file.StartWrite(from, to-from)
			f.started = to
		}
	}
	return nil
}

// ways sees to it that the data region is not written through the page cache and around it at
// the same time, as vfs.File wants it: the writer and the background may write at once, but
// only one way.
type ways struct {
	mu     sync.Mutex
	turn   sync.Cond // broadcast when nobody writes any more
	direct bool
	users  int
}

func (w *ways) begin(direct bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.turn.L = &w.mu
	for w.users > 0 && w.direct != direct {
		w.turn.Wait()
	}
	w.direct = direct
	w.users++
}

func (w *ways) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.users--; w.users == 0 {
		w.turn.Broadcast()
	}
}
