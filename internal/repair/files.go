package repair

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// healing is what a file needs.
type healing int

const (
	nothing  healing = iota
	reindex          // slots and header pages, from the records
	rewrite          // a new file, of the entries that count
	byEngine         // it cannot be used: the engine sets it aside
)

// needs says what a problem with an entry file needs.
func needs(p *inspect.Problem) healing {
	switch p.Kind {
	case inspect.KindHeader:
		if p.Severity == inspect.Note {
			return reindex
		}
		return byEngine
	case inspect.KindMissing, inspect.KindForeign, inspect.KindChain, inspect.KindGap, inspect.KindUnread, inspect.KindName:
		return byEngine
	}
	if p.Severity != inspect.Damage {
		return nothing
	}
	switch p.Kind {
	case inspect.KindSlots:
		return reindex
	case inspect.KindRecord, inspect.KindOrder, inspect.KindSeal, inspect.KindCut:
		return rewrite
	case inspect.KindTampered:
		return needsTampered(p)
	}
	return nothing
}

// needsTampered: a record that was forged is lost, slots are rebuilt, and nothing of
// a file with a forged header can be used.
func needsTampered(p *inspect.Problem) healing {
	switch {
	case p.First != 0:
		return rewrite
	case p.Offset == 0:
		return reindex
	}
	return byEngine
}

// healFiles heals the files in front of below, the first entry that is lost. It
// reports whether there was anything to do.
func (w *work) healFiles(ctx context.Context, l *inspect.Log, below uint64) (did bool, err error) {
	m, err := w.openMeta(true)
	if errors.Is(err, mmapwal.ErrCorrupt) {
		return false, nil // for the engine to refuse
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	for _, f := range l.Files {
		switch fileNeeds(l, f, below) {
		case reindex:
			err = w.reindex(m, f)
		case rewrite:
			err = w.rewrite(ctx, m, l, f, below)
		default:
			continue
		}
		if err != nil {
			return did, err
		}
		did = true
	}
	return did, nil
}

// fileNeeds says what a file of l needs, if below is the first entry that is lost.
func fileNeeds(l *inspect.Log, f *inspect.File, below uint64) (what healing) {
	for k := range l.Problems {
		if l.Problems[k].File == f.Name {
			what = max(what, needs(&l.Problems[k]))
		}
	}
	switch {
	case f.Role != inspect.RoleLive || f.Size < entryfile.DataStart || f.First > below:
		return byEngine
	case what < rewrite && below <= l.Last && f.First != 0 && f.First < below && f.Bytes[inspect.Superseded] > 0:
		return rewrite // what replaced some of its entries may go: they must not come back
	case what == reindex && !f.Sealed && !l.Meta.Clean:
		return byEngine // as after every crash
	}
	return what
}

// reindex writes the slots and both header pages of a file anew, from its records. A
// file that was not sealed is sealed.
func (w *work) reindex(m *metafile.File, info *inspect.File) (err error) {
	meta := m.Meta()
	f, err := entryfile.Open(w.fsys, w.dir, info.Number, meta.LogID, m.Keys(), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Release()) }()
	if !f.Sealed() && !w.o.NotDgraph {
		if err := f.Continue(meta.Durable.Offset, true); errors.Is(err, mmapwal.ErrCorrupt) {
			return fmt.Errorf("the slots of %s: %w", info.Name, ErrDgraph)
		}
	}
	scan, err := f.Check()
	if err != nil {
		return err
	}
	w.did(info.Name, "slots and header pages written anew from the records")
	return f.Recover(scan, scan.End)
}

// rewrite puts a new file in the place of a damaged one. It holds the entries in
// front of below that count, and is sealed.
func (w *work) rewrite(ctx context.Context, m *metafile.File, l *inspect.Log, info *inspect.File, below uint64) error {
	h, err := w.header(info.Name)
	if err != nil {
		return err
	}
	spec := entryfile.Spec{
		Number: h.Number, Prev: h.Prev, PrevSalt: h.PrevSalt, PrevSealed: h.PrevSealed, LogID: h.LogID, Salt: h.Salt,
		DataBytes: h.Size - entryfile.DataStart, Random: w.o.Host.Random,
	}
	if len(h.WrappedKey) > 0 {
		spec.Keys = m.Keys() // and gets a key of its own: no nonce is used twice
	}
	if m.Meta().ClearedEnd.File == h.Number {
		spec.DataBytes += page.Size // for skipCleared
	}
	f, err := entryfile.Prepare(w.fsys, w.dir, spec, 1)
	if err != nil {
		return err
	}
	c := &copying{to: f, spec: &spec, meta: m.Meta()}
	err = w.fill(ctx, c, l, info, below)
	if err == nil {
		err = f.Seal()
	}
	if err != nil {
		f.Discard()
		return err
	}
	if err := f.Publish(); err != nil {
		return errors.Join(err, f.Release()) // it may have the name already
	}
	w.did(info.Name, "written anew with the %d entries that can be read and count", c.count)
	return f.Release()
}

// fill copies the entries of a file that count, in front of below.
func (w *work) fill(ctx context.Context, c *copying, l *inspect.Log, info *inspect.File, below uint64) (err error) {
	if info.First == 0 || info.First >= below {
		return nil
	}
	if c.from, err = w.fsys.Open(filepath.Join(w.dir, info.Name), true); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.from.Close()) }()
	return l.Each(ctx, info.First, min(info.Last, below-1), c.add)
}

// copying is the copying of entries to a new file of the same number.
type copying struct {
	from  vfs.File
	to    *entryfile.File
	spec  *entryfile.Spec
	meta  metafile.Meta
	count int
}

// add appends e, as it was saved.
func (c *copying) add(e inspect.Entry) error {
	if e.Err != nil {
		return e.Err
	}
	entry := &raftpb.Entry{Index: &e.Index, Term: &e.Term, Type: new(raftpb.EntryType(e.Type))}
	if !e.Cleared {
		var flags [1]byte
		if _, err := c.from.ReadAt(flags[:], e.Offset+atFlags); err != nil {
			return err
		}
		if flags[0]&typeUnset != 0 {
			entry.Type = nil
		}
		if len(e.Data) > 0 || flags[0]&dataEmpty != 0 {
			entry.Data = e.Data
		}
		if err := c.skipCleared(entry); err != nil {
			return err
		}
	}
	c.count++
	return c.append(entry)
}

func (c *copying) append(e *raftpb.Entry) error {
	if err := c.to.Reserve(c.spec.RecordBytes(len(e.Data))); err != nil {
		return err
	}
	return c.to.Append([]*raftpb.Entry{e}, 0)
}

// skipCleared sees to it that e does not get to a place in front of which data counts
// as cleared: e replaces a record that takes the bytes up to there.
func (c *copying) skipCleared(e *raftpb.Entry) error {
	const most = 1 << 20
	end := c.meta.ClearedEnd
	if end.File != c.spec.Number || e.GetType() != raftpb.EntryNormal || e.GetIndex() >= c.meta.ClearedBelow {
		return nil
	}
	for c.to.End() < end.Offset {
		n := end.Offset - c.to.End() - c.spec.RecordBytes(0)
		if n > 2*most {
			n = most
		}
		if err := c.append(&raftpb.Entry{Index: e.Index, Term: e.Term, Data: make([]byte, max(n, 0))}); err != nil {
			return err
		}
	}
	return nil
}

// The flags of a record, as docs/format.md has them.
const (
	atFlags   = 5
	typeUnset = 1
	dataEmpty = 2
)

// header returns the header of a file: of its two pages the newest that is whole.
func (w *work) header(name string) (h entryfile.Header, err error) {
	f, err := w.fsys.Open(filepath.Join(w.dir, name), true)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	newest := uint64(0)
	for _, at := range entryfile.HeaderPages {
		var p [page.Size]byte
		if _, err := f.ReadAt(p[:], at); err != nil {
			return h, err
		}
		if x, sequence, err := entryfile.InspectHeader(p[:]); err == nil && sequence > newest {
			h, newest = x, sequence
		}
	}
	if newest == 0 {
		return h, fmt.Errorf("%s: both header pages are damaged", name)
	}
	return h, nil
}
