package inspect

import (
	"bytes"
	"context"
	"fmt"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
)

// Entry is an entry of the log, or several that cannot be read.
type Entry struct {
	Index   uint64
	Term    uint64
	Type    uint32
	Data    []byte // the caller's
	Cleared bool   // the data was cleared
	File    string // base name; empty if Err says that there is none
	Offset  int64  // of the record

	Last uint64 // with Err: the last one of those that cannot be read
	Err  error  // *corrupt.Error, encryption.ErrTampered
}

// Each calls visit for the entries [from, to] of the log, one after another, with
// those that cannot be read. It reads each record as it is now; beside a live owner
// that may be more, or less, than what Look found.
//
// Errors: encryption.ErrKeyRequired; what visit returns; fs.ErrNotExist if a live
// owner has removed a file since.
func (l *Log) Each(ctx context.Context, from, to uint64, visit func(Entry) error) error {
	if l.meta.Encrypted && l.opts.Wrapper == nil {
		return fmt.Errorf("%s: %w", l.Dir, encryption.ErrKeyRequired)
	}
	from, to = max(from, l.First), min(to, l.Last)
	if l.meta.Encrypted {
		var err error
		if l.keys, err = encryption.UnwrapDirectoryKey(l.opts.Wrapper, l.meta.WrappedKey, l.meta.LogID); err != nil {
			return err
		}
		defer l.wipe()
	}
	l.ctx = ctx
	for _, f := range l.Files {
		if f.Last == 0 || f.Last < from || f.First > to || from > to {
			continue
		}
		if f.First > from {
			if err := visit(l.nowhere(from, f.First-1)); err != nil {
				return err
			}
			from = f.First
		}
		if err := l.eachOf(f, from, min(f.Last, to), visit); err != nil {
			return err
		}
		from = f.Last + 1
	}
	if from <= to {
		return visit(l.nowhere(from, to))
	}
	return nil
}

// nowhere is entries that no file holds.
func (l *Log) nowhere(from, to uint64) Entry {
	return Entry{Index: from, Last: to, Err: &corrupt.Error{File: l.Dir, First: from, Last: to, Reason: "no file holds them"}}
}

// eachOf is Each for one file.
func (l *Log) eachOf(f *File, from, to uint64, visit func(Entry) error) error {
	// What there is to say about the file was said by Look.
	quiet := *l
	quiet.opts.Check, quiet.opts.Progress, quiet.Problems = false, nil, nil
	s := &scan{log: &quiet, file: &File{Name: f.Name, Number: f.Number, Role: f.Role, Bytes: Bytes{}}, later: f.behind}
	closing, err := s.open()
	if err != nil {
		return err
	}
	defer closing()
	if err := guard(f.Name, s.mem, s.look); err != nil {
		return err
	}
	for i := from; i <= to; i++ {
		var e Entry
		if err := guard(f.Name, s.mem, func() error { e = s.entry(i); return nil }); err != nil {
			return err
		}
		if err := visit(e); err != nil {
			return err
		}
		if err := l.ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// entry reads entry i.
func (s *scan) entry(i uint64) Entry {
	e := Entry{Index: i, Last: i, File: s.file.Name}
	damaged := func(reason string) Entry {
		e.Err = &corrupt.Error{File: s.file.Name, Offset: e.Offset, First: i, Last: i, Reason: reason}
		return e
	}
	if len(s.entries) == 0 || i < s.first || i > s.last() {
		return damaged("the entry is not in the file any more")
	}
	r, state := s.at(i)
	e.Term, e.Type, e.Offset = r.Term, r.Type, r.Offset
	switch state {
	case lost:
		return damaged("the record is damaged")
	case cleared:
		e.Term, e.Type, e.Cleared = s.digestTerm(i), s.digestType(i), true
		if r = s.sparedRecord(i); r.Index == 0 {
			if e.Type != 0 {
				return damaged("the record, which was spared when data was cleared, is damaged")
			}
			return e
		}
		e.Cleared, e.Offset = false, r.Offset
	}
	if s.isCleared(r) {
		e.Cleared = true
		return e
	}
	again, ok := entryfile.InspectRecord(s.mem, r.Offset, s.limit(), s.header.Salt, true)
	if !ok || again != r {
		return damaged("the record is damaged")
	}
	if s.secrets == nil {
		e.Data = bytes.Clone(s.mem[r.Offset+entryfile.RecordHeaderBytes : r.Padded()])
		return e
	}
	data, err := s.secrets.Open(s.mem, r)
	e.Data, e.Err = bytes.Clone(data), err
	return e
}

// sparedRecord returns the record of an entry in the punched region; zero if there
// is none.
func (s *scan) sparedRecord(i uint64) entryfile.Record {
	for _, r := range s.spared {
		if r.Index == i {
			return r
		}
	}
	return entryfile.Record{}
}
