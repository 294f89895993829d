package dgraph

import (
	"bytes"
	"crypto/aes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3/raftpb"
)

const firstPages = 2 * page.Size // of wal.meta: where a log of package mmapwal has its promises

// Log is a raftwal directory. It keeps no file open, and never writes.
type Log struct {
	transfer.Contents

	Commit         uint64 // as it is stored; HardState has it where raft accepts it
	LeftOut        int    // entries that are still there, though the snapshot covers them
	Files          int    // entry files that hold something
	EncryptedFiles int    // how many of them are encrypted

	dir   string
	keys  keyring
	files []file // by their first index
}

// file is an entry file with entries.
type file struct {
	path  string
	first uint64
	size  int64
	keyID uint64
	iv    [8]byte
}

// Open reads the directory of a Dgraph that is not running, and checks it, but
// for what only the data's meaning could tell. master is Dgraph's encryption key,
// nil if there is none.
//
// Errors: ErrNotDgraph, ErrOurs, *mmapwal.CorruptError, ErrKeyRequired,
// ErrWrongKey, ErrNotEncrypted, and what the operating system says.
func Open(dir string, master []byte) (*Log, error) {
	l := &Log{dir: dir}
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	first, err := readMeta(dir, &l.Contents)
	proven, detached, foreign := judgeMark(filepath.Join(dir, metaName), first)
	if foreign != nil {
		return nil, foreign // it explains err, if there is one
	}
	if err != nil {
		return nil, err
	}
	if err := l.findFiles(proven); err != nil {
		return nil, err
	}
	if at := l.Snapshot.GetMetadata().GetIndex(); at != 0 && at == detached {
		return nil, fmt.Errorf("%s: the data of the snapshot at %d is in a file that Dgraph does not know: "+
			"let Dgraph create a newer snapshot first", dir, at)
	}
	if err := l.unlock(master); err != nil {
		return nil, err
	}
	l.First = l.Snapshot.GetMetadata().GetIndex() + 1
	if l.Last, l.LeftOut, err = l.check(); err != nil {
		return nil, err
	}
	l.Entries = l.entries
	l.settleCommit()
	return l, nil
}

// settleCommit puts the commit index where raft accepts it, as mmapwal.Open does.
func (l *Log) settleCommit() {
	l.Commit = l.HardState.GetCommit()
	commit := min(max(l.Commit, l.First-1), l.Last)
	if commit != l.Commit && (l.HardState.GetTerm() != 0 || l.HardState.GetVote() != 0 || l.Commit != 0) {
		l.HardState.Commit = &commit
	}
}

// judgeMark looks for package mmapwal's mark in wal.meta, which begins with
// first. A log of that package that was closed cleanly opens in Dgraph, and is
// Dgraph's once Dgraph wrote to it. proven says that Dgraph wrote this wal.meta:
// without a mark, or because it is not what was closed any more. detached is the
// index of the snapshot, at the close, if its data was in a file of its own.
func judgeMark(path string, first []byte) (proven bool, detached uint64, err error) {
	if len(first) < atHardState || isZero(first[atUnused:atHardState]) {
		return true, 0, nil
	}
	if len(first) < firstPages {
		return false, 0, fmt.Errorf("%s: %w", path, ErrNotDgraph)
	}
	closed, err := metafile.Decode(first[:page.Size])
	if errors.Is(err, metafile.ErrVersion) {
		return false, 0, fmt.Errorf("%s: %w", path, ErrOurs)
	}
	if err != nil {
		var twin error
		if closed, twin = metafile.Decode(first[page.Size:]); twin != nil {
			return false, 0, fmt.Errorf("%s: %w: %w", path, ErrNotDgraph, err)
		}
		if proven = metafile.WrittenByDgraph(first[:page.Size], first[page.Size:]); !proven {
			return false, 0, fmt.Errorf("%s: page 0 is damaged, which the next open of the log heals: %w", path, ErrOurs)
		}
	}
	if !closed.Clean || closed.Encrypted {
		return false, 0, fmt.Errorf("%s: %w", path, ErrOurs)
	}
	if closed.SnapshotInFile {
		detached = closed.Snapshot.Index
	}
	return proven, detached, nil
}

func isZero(p []byte) bool { return bytes.Equal(p, make([]byte, len(p))) }

// findFiles finds the entry files, in order. Without proof that Dgraph wrote
// wal.meta last, one of them must show that it wrote at all.
func (l *Log) findFiles(proven bool) error {
	names, err := os.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, entry := range names {
		if entry.IsDir() || !strings.HasSuffix(entry.Name(), entryfile.Suffix) {
			continue
		}
		path := filepath.Join(l.dir, entry.Name())
		if n, ok := entryfile.ParseName(entry.Name()); !ok || entryfile.Name(n) != entry.Name() {
			return corrupt.At(path, 0, "not a name that Dgraph gives an entry file: move it away if it is none")
		}
		written, err := l.findFile(path)
		if err != nil {
			return err
		}
		proven = proven || written
	}
	if !proven && !openedByDgraph(l.dir) {
		return fmt.Errorf("%s: %w", l.dir, ErrOurs)
	}
	slices.SortFunc(l.files, func(a, b file) int {
		if a.first < b.first || a.first == b.first && a.path < b.path {
			return -1
		}
		return 1
	})
	return nil
}

// findFile adds the entry file, unless it holds nothing: Dgraph would remove it.
// written says that there is a slot that Dgraph wrote.
func (l *Log) findFile(path string) (written bool, err error) {
	h, err := transfer.OpenFile(path)
	if err != nil {
		return false, err
	}
	info, err := h.Stat()
	if err = errors.Join(err, h.Close()); err != nil || info.Size() == 0 {
		return false, err
	}
	f := file{path: path, size: info.Size()}
	r, err := f.open()
	if err != nil {
		return false, err
	}
	defer r.close()
	if f.first = decodeSlot(r.slots, 0).index; f.first == 0 {
		return false, r.checkEmpty(0)
	}
	tail, err := r.bytes(atKey, dataStart-atKey)
	if err != nil {
		return false, err
	}
	f.keyID = order.Uint64(tail)
	copy(f.iv[:], tail[8:])
	l.files = append(l.files, f)
	l.Files++
	if f.keyID != 0 {
		l.EncryptedFiles++
	}
	return r.writtenByDgraph(), nil
}

// unlock reads the keys and sees that there is one for each file.
func (l *Log) unlock(master []byte) (err error) {
	if master != nil {
		if l.keys, err = readKeys(l.dir, master); err != nil {
			return err
		}
	}
	for _, f := range l.files {
		switch {
		case f.keyID == 0:
		case l.keys == nil && l.hasRegistry():
			return fmt.Errorf("%s: %w: give Dgraph's encryption key", f.path, ErrKeyRequired)
		case l.keys == nil:
			return fmt.Errorf("%s: the entries are encrypted, and there is no %s: %w", f.path, registryName, ErrKeyLost)
		case l.keys[f.keyID] == nil:
			return fmt.Errorf("%s: the entries are encrypted with data key %d, which is not in %s: %w", f.path, f.keyID, registryName, ErrKeyLost)
		}
	}
	return nil
}

func (l *Log) hasRegistry() bool {
	_, err := os.Stat(filepath.Join(l.dir, registryName))
	return !errors.Is(err, fs.ErrNotExist)
}

// check reads all slots and lengths once.
func (l *Log) check() (last uint64, leftOut int, err error) {
	last = l.Snapshot.GetMetadata().GetIndex()
	err = l.walk(func(_ *reader, s slot, _ int64, covered bool) error {
		if covered {
			leftOut++
		} else {
			last = s.index
		}
		return nil
	})
	return last, leftOut, err
}

var errStop = errors.New("stop")

// entries implements transfer.Contents.Entries.
func (l *Log) entries(yield func(*raftpb.Entry, error) bool) {
	err := l.walk(func(r *reader, s slot, n int64, covered bool) error {
		if covered {
			return nil
		}
		e, err := l.entry(r, s, n)
		if err != nil {
			return err
		}
		if !yield(e, nil) {
			return errStop
		}
		return nil
	})
	if err != nil && err != errStop {
		yield(nil, err)
	}
}

// entry reads the entry of a slot that walk found fine.
func (l *Log) entry(r *reader, s slot, n int64) (*raftpb.Entry, error) {
	typ := raftpb.EntryType(s.typ)
	e := &raftpb.Entry{Term: &s.term, Index: &s.index, Type: &typ}
	if n == 0 {
		return e, nil
	}
	data, err := r.bytes(int64(s.offset)+4, n)
	if err != nil {
		return nil, err
	}
	if r.keyID == 0 {
		e.Data = bytes.Clone(data)
		return e, nil
	}
	var iv [aes.BlockSize]byte
	copy(iv[:], r.iv[:])
	order.PutUint64(iv[8:], s.offset)
	e.Data = xor(l.keys[r.keyID], iv[:], data)
	return e, nil
}

// walk calls visit for each entry, in order, once it is checked: with its slot,
// the length of its data, and whether the snapshot covers it.
func (l *Log) walk(visit func(r *reader, s slot, n int64, covered bool) error) error {
	at := l.Snapshot.GetMetadata()
	o := sequence{snapshot: at.GetIndex(), last: at.GetIndex(), term: at.GetTerm()}
	for _, f := range l.files {
		if err := f.walk(&o, visit); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) walk(o *sequence, visit func(r *reader, s slot, n int64, covered bool) error) error {
	r, err := f.open()
	if err != nil {
		return err
	}
	defer r.close()
	end := int64(dataStart) // of the data so far
	for k := range maxSlots {
		s := decodeSlot(r.slots, k)
		if s.index == 0 {
			return r.checkEmpty(k)
		}
		covered, reason := o.next(s)
		if reason != "" {
			return damagedSlot(f.path, s, "%s", reason)
		}
		n := int64(0)
		if !covered {
			if n, end, err = r.extent(s, end); err != nil {
				return err
			}
		}
		if err := visit(r, s, n, covered); err != nil {
			return err
		}
	}
	return nil
}

// sequence checks that slots follow each other as the entries of a log do. Of
// what the snapshot covers only the order counts: a snapshot that came from
// another node replaces entries that never led up to it.
type sequence struct {
	snapshot   uint64 // index
	covered    uint64 // the last index at or below it so far
	last, term uint64 // of the entry before: at first, the snapshot's
}

// next takes the next slot; reason says what is wrong with it, if anything.
func (o *sequence) next(s slot) (covered bool, reason string) {
	if s.index <= o.snapshot {
		if o.last > o.snapshot {
			return true, fmt.Sprintf("entry %d follows entry %d", s.index, o.last)
		}
		if s.index <= o.covered {
			return true, fmt.Sprintf("entry %d follows entry %d", s.index, o.covered)
		}
		o.covered = s.index
		return true, ""
	}
	switch {
	case s.index <= o.last:
		return false, fmt.Sprintf("entry %d follows entry %d", s.index, o.last)
	case s.index != o.last+1 && o.last == o.snapshot:
		return false, fmt.Sprintf("entry %d is the first behind the snapshot at %d: the entries between them are missing", s.index, o.snapshot)
	case s.index != o.last+1:
		return false, fmt.Sprintf("entry %d follows entry %d: the entries between them are missing", s.index, o.last)
	case s.index == math.MaxUint64:
		return false, "the index is the highest there is"
	case s.term == 0:
		return false, "the term is 0; terms start at 1"
	case s.term < o.term:
		return false, fmt.Sprintf("entry %d has term %d, below %d, that of the entry before it", s.index, s.term, o.term)
	case s.typ > math.MaxUint8:
		return false, fmt.Sprintf("there is no entry type %d", s.typ)
	}
	o.last, o.term = s.index, s.term
	return false, ""
}

// reader is an open entry file.
type reader struct {
	*file
	f      *os.File
	slots  []byte
	window []byte // part of the file, from at on
	at     int64
}

// open opens the file and reads its slots.
func (f *file) open() (*reader, error) {
	if f.size < dataStart {
		return nil, corrupt.At(f.path, f.size, "the file is cut short: it has %d bytes, the slots alone take %d", f.size, dataStart)
	}
	h, err := transfer.OpenFile(f.path)
	if err != nil {
		return nil, err
	}
	r := &reader{file: f, f: h, slots: make([]byte, maxSlots*slotBytes)}
	if _, err := h.ReadAt(r.slots, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("read the slots of %s: %w", f.path, err), h.Close())
	}
	return r, nil
}

func (r *reader) close() { _ = r.f.Close() } // it was read only

// writtenByDgraph reports whether one of the slots is not package mmapwal's.
func (r *reader) writtenByDgraph() bool {
	for k := range maxSlots {
		if s := decodeSlot(r.slots, k); s.index == 0 || s.unsummed {
			return s.index != 0
		}
	}
	return false
}

// checkEmpty: all slots from number on are empty.
func (r *reader) checkEmpty(number int) error {
	for k := number; k < maxSlots; k++ {
		if s := decodeSlot(r.slots, k); s.index != 0 {
			return damagedSlot(r.path, s, "it is in use, but slot %d in front of it is empty", number)
		}
	}
	return nil
}

// extent returns the length of a slot's data, and where that ends. before is
// where the data of the slot before it ends.
func (r *reader) extent(s slot, before int64) (n, end int64, err error) {
	if s.offset == 0 {
		return 0, before, nil
	}
	if s.offset < dataStart || s.offset > uint64(r.size-4) {
		return 0, 0, damagedSlot(r.path, s, "its data is said to be at %d, which is not in the data of the file (%d to %d)", s.offset, dataStart, r.size)
	}
	at := int64(s.offset)
	if at < before {
		return 0, 0, damagedSlot(r.path, s, "its data is said to be at %d, inside that of an entry before it, which ends at %d", at, before)
	}
	p, err := r.bytes(at, 4)
	if err != nil {
		return 0, 0, err
	}
	n = int64(order.Uint32(p))
	if n > r.size-4-at {
		e := corrupt.At(r.path, at, "the length of the data is %d bytes, the file has %d bytes more (slot %d)", n, r.size-4-at, s.number)
		e.First, e.Last = s.index, s.index
		return 0, 0, e
	}
	return n, at + 4 + n, nil
}

// bytes returns n bytes at an offset; they are valid until the next call.
func (r *reader) bytes(at, n int64) ([]byte, error) {
	const window = 256 << 10
	if at < r.at || at+n > r.at+int64(len(r.window)) {
		r.window = slices.Grow(r.window[:0], int(max(n, window)))[:max(n, window)]
		got, err := r.f.ReadAt(r.window, at)
		if int64(got) < n && err == io.EOF {
			err = corrupt.At(r.path, at+int64(got), "the file has become shorter meanwhile: stop Dgraph first")
		}
		r.at, r.window = at, r.window[:got]
		if int64(got) < n {
			return nil, err
		}
	}
	return r.window[at-r.at:][:n], nil
}
