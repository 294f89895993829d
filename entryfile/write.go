package entryfile

import (
	"slices"

	"github.com/seed-2fef92ad/raftwal/internal/page"
)

const (
	// maxSmall is how many bytes a record has at most that is collected in one piece.
	maxSmall = page.Size
	// maxOut is how many bytes of records are collected before they are written.
	maxOut = 32 << 10
	// startStep is after how many bytes the disk begins to write a large Save,
	// while the rest of it is collected.
	startStep = 128 << 10
)

// storeRecord stores a record at the end: a small one in one piece, the payload of a large
// one from where it is.
func (f *File) storeRecord(r *record, data []byte, at int64) error {
	total := r.bytes()
	if total > maxSmall {
		return f.storeLarge(r, data, at)
	}
	if int64(len(f.out))+total > maxOut {
		if err := f.flush(at); err != nil {
			return err
		}
	}
	n := int64(len(f.out))
	f.out = slices.Grow(f.out, int(total))[:n+total]
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

// put collects p, for the offset at, behind what was put before; what is large goes on its
// way at once.
func (f *File) put(at int64, p []byte) error {
	if len(p) >= maxOut {
		if err := f.flush(at); err != nil {
			return err
		}
		return f.write(p, at)
	}
	for len(p) > 0 {
		n := min(maxOut-len(f.out), len(p))
		f.out = append(f.out, p[:n]...)
		p, at = p[n:], at+int64(n)
		if len(f.out) == maxOut {
			if err := f.flush(at); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush writes what was collected, which ends at the offset end.
func (f *File) flush(end int64) error {
	if len(f.out) == 0 {
		return nil
	}
	err := f.write(f.out, end-int64(len(f.out)))
	f.out = f.out[:0]
	return err
}

// write writes p to the file. What is going to be synced at once is written with WriteAt:
// that takes no page faults, and dirties the blocks it writes to only, where a store
// dirties a whole folio of the page cache. What is not is stored, without a system call.
func (f *File) write(p []byte, at int64) error {
	if !f.synced {
		return f.store(at, p)
	}
	return f.writeAt(p, at)
}

// writeAt writes p, and has the disk start on it if it is much. Pages are started on only
// when they are full, or the disk would write them twice.
func (f *File) writeAt(p []byte, at int64) error {
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

// storeSlots stores the slots [from, to); those without an entry become zero.
func (f *File) storeSlots(from, to uint64) error {
	const perBuffer = page.Size / SlotBytes
	for from < to {
		n := min(to-from, perBuffer-from%perBuffer)
		for k := range n {
			p := f.buf[k*SlotBytes : (k+1)*SlotBytes]
			if from+k < f.index.Len() {
				f.index.slot(f.index.First()+from+k).encode(p, f.header.Salt)
			} else {
				clear(p)
			}
		}
		if err := f.store(int64(from)*SlotBytes, f.buf[:n*SlotBytes]); err != nil {
			return err
		}
		from += n
	}
	return nil
}
