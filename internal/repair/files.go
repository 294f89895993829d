package repair

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strings"

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
		if p.Severity != inspect.Damage {
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

// healFiles does to the files what makes them a log without damage that ends in front of
// t.lost. It reports whether there was anything to do.
//
// From front to back, so that what was replaced does not come back if it is stopped: files
// are written anew without what is damaged or does not stay; a file of which nothing can be
// read, but that one that stays follows, has an empty one put in its place. Then those that
// nothing stays of are set aside.
func (w *work) healFiles(ctx context.Context, l *inspect.Log, t truth) (did bool, err error) {
	m, err := w.openMeta(true)
	if errors.Is(err, mmapwal.ErrCorrupt) {
		return false, nil // for the engine to refuse
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	o := orderOf(l, t)
	wants := make(map[string]healing)
	for k := range l.Problems {
		p := &l.Problems[k]
		wants[p.File] = max(wants[p.File], needs(p))
	}
	for _, f := range o.stay {
		switch fileNeeds(l, f, wants[f.Name], t.lost) {
		case reindex:
			err = w.reindex(m, f)
		case rewrite:
			err = w.rewrite(ctx, m, l, f, t.lost)
		default:
			continue
		}
		if err != nil {
			return did, err
		}
		did = true
	}
	for _, p := range o.places {
		if err := w.putEmpty(m, l, p); err != nil {
			return did, err
		}
	}
	return did || o.changes(), w.dropFiles(o)
}

// order is which files of a damaged log stay.
type order struct {
	stay   []*inspect.File
	aside  []*inspect.File // set aside
	places []gapInOrder    // where an empty file has to stand
	lacks  bool            // the file that the log ended in is missing
}

// gapInOrder is where a file stood that one that stays follows.
type gapInOrder struct{ before, behind *inspect.File }

func (o *order) changes() bool { return len(o.aside)+len(o.places) > 0 || o.lacks }

// orderOf says which files stay: those that can be read, up to the last one with entries
// in front of t.lost.
func orderOf(l *inspect.Log, t truth) (o order) {
	strange := strangers(l)
	last := len(l.Files) // of those behind it nothing stays
	if t.lost != math.MaxUint64 || len(strange) > 0 || len(missing(l)) > 0 {
		last = 0
		for n, f := range l.Files {
			if f.Role == inspect.RoleLive && f.First != 0 && f.First < t.lost && !strange[f] {
				last = n + 1
			}
		}
	}
	var before *inspect.File
	for n, f := range l.Files {
		switch {
		case f.Role == inspect.RoleDead:
			continue
		case n >= last && f.Role != inspect.RoleLive && !strange[f] && len(o.aside) == 0:
			continue // the engine removes it
		case n >= last || strange[f]:
			o.aside = append(o.aside, f)
			continue
		}
		if h := &f.Header; before != nil && h.Prev != before.Number || before == nil && h.Prev >= l.Meta.FirstFile {
			o.places = append(o.places, gapInOrder{before, f})
		}
		o.stay, before = append(o.stay, f), f
	}
	ends := l.Meta.Durable.File
	o.lacks = ends >= l.Meta.FirstFile && (before == nil || before.Number < ends)
	return o
}

// strangers returns the files that cannot be read, or are not the ones that should be here.
// Where a file does not follow the one in front of it, one of the two is: that in front, if
// wal.meta or the next file knows the other one.
func strangers(l *inspect.Log) map[*inspect.File]bool {
	strange := make(map[*inspect.File]bool)
	var before *inspect.File
	for n, f := range l.Files {
		switch {
		case f.Role == inspect.RoleDead:
			continue
		case !f.Held.Known:
			strange[f] = true
			continue
		}
		h := &f.Header
		if before != nil && (h.Prev < before.Number || h.Prev == before.Number && h.PrevSalt != before.Header.Salt) {
			if knows(l, n) {
				strange[before] = true
			} else {
				strange[f] = true
				continue
			}
		}
		before = f
	}
	return strange
}

// knows reports whether wal.meta or the next file names file number n of l, with its salt.
func knows(l *inspect.Log, n int) bool {
	f := l.Files[n]
	if d := &l.Meta.Durable; d.File == f.Number { // another salt would have been noticed
		return true
	}
	if n+1 == len(l.Files) {
		return false
	}
	next := l.Files[n+1]
	return next.Held.Known && next.Header.Prev == f.Number && next.Header.PrevSalt == f.Header.Salt
}

// fileNeeds says what a file that stays needs, if its problems need what, and below is the
// first entry that is lost.
func fileNeeds(l *inspect.Log, f *inspect.File, what healing, below uint64) healing {
	switch {
	case f.Role != inspect.RoleLive:
		return nothing
	case what == byEngine:
		return rewrite
	case what < rewrite && below <= f.Held.Last:
		return rewrite // what replaced some of its entries may go: they must not come back
	case what == reindex && !f.Sealed && !l.Meta.Clean:
		return nothing // as after every crash
	}
	return what
}

// putEmpty puts an empty file where one stood of which nothing can be read.
func (w *work) putEmpty(m *metafile.File, l *inspect.Log, g gapInOrder) error {
	behind := &g.behind.Header
	spec := entryfile.Spec{
		Number: behind.Prev, Prev: l.Meta.FirstFile - 1, LogID: behind.LogID, Salt: behind.PrevSalt,
		DataBytes: behind.Size - entryfile.DataStart, Random: w.o.Host.Random,
	}
	if g.before != nil {
		spec.Prev, spec.PrevSalt, spec.PrevSealed = g.before.Number, g.before.Header.Salt, g.before.Sealed
	}
	if meta := m.Meta(); meta.Encrypted && spec.Number >= meta.EncryptedFrom {
		spec.Keys = m.Keys()
	}
	f, err := entryfile.Prepare(w.fsys, w.dir, spec, 1)
	if err != nil {
		return err
	}
	if err := f.Seal(); err != nil {
		f.Discard()
		return err
	}
	if err := errors.Join(w.keepOwner(entryfile.Name(spec.Number)+temporary, g.behind.Name), f.Publish()); err != nil {
		return errors.Join(err, f.Release()) // it may have the name already
	}
	w.did(entryfile.Name(spec.Number), "an empty file put in its place, which %s follows", g.behind.Name)
	return f.Release()
}

// dropFiles sets files aside, and has wal.meta not name them any more.
func (w *work) dropFiles(o order) error {
	if !o.changes() {
		return nil
	}
	if err := w.setAside(o); err != nil {
		return err
	}
	if err := w.give(); err != nil {
		return err
	}
	f, err := w.openMeta(false)
	if err != nil {
		return err
	}
	m := f.Meta()
	m.Durable, m.Clean = metafile.End{}, false
	err = f.Restore()
	if err == nil {
		err = f.Commit(m)
	}
	return errors.Join(err, f.Close(), w.take())
}

// setAside renames files out of the log, the last one first; one in whose place there is
// another by now is in the backup.
func (w *work) setAside(o order) error {
	for _, f := range slices.Backward(o.aside) {
		if slices.ContainsFunc(o.places, func(g gapInOrder) bool { return g.behind.Header.Prev == f.Number }) {
			continue
		}
		name, err := w.asideName(f.Name)
		if err != nil {
			return err
		}
		if err := w.fsys.Rename(filepath.Join(w.dir, f.Name), filepath.Join(w.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		w.did(f.Name, "set aside as %s", name)
	}
	return w.fsys.SyncDir(w.dir)
}

// asideName returns a name for what is set aside that is not taken yet.
func (w *work) asideName(name string) (string, error) {
	infos, err := w.fsys.List(w.dir)
	if err != nil {
		return "", err
	}
	taken := func(name string) bool {
		return slices.ContainsFunc(infos, func(i vfs.Info) bool { return i.Name == name })
	}
	aside := name + ".corrupt"
	for k := 2; taken(aside); k++ {
		aside = fmt.Sprintf("%s.%d.corrupt", name, k)
	}
	return aside, nil
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
	if err := errors.Join(w.keepOwner(info.Name+temporary, info.Name), f.Publish()); err != nil {
		return errors.Join(err, f.Release()) // it may have the name already
	}
	w.did(info.Name, "written anew with the %d entries that can be read and count", c.count)
	return f.Release()
}

// temporary ends the name of a file that is being made.
const temporary = ".tmp"

// keepOwner gives a file the owner and mode of another: who repairs may be somebody else than
// who uses the log.
func (w *work) keepOwner(name, like string) error {
	if w.fsys != vfs.OS() {
		return nil
	}
	return vfs.KeepOwner(filepath.Join(w.dir, name), filepath.Join(w.dir, like))
}

// keepOwners does so for the files that were not there before, after wal.meta.
func (w *work) keepOwners(before map[string]bool) error {
	infos, err := w.fsys.List(w.dir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		_, isEntryFile := entryfile.ParseName(info.Name)
		if before[info.Name] || !isEntryFile && !strings.HasSuffix(info.Name, entryfile.SpareSuffix) {
			continue
		}
		if err := w.keepOwner(info.Name, metafile.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// names returns the names of the files.
func (w *work) names() (map[string]bool, error) {
	infos, err := w.fsys.List(w.dir)
	names := make(map[string]bool, len(infos))
	for _, info := range infos {
		names[info.Name] = true
	}
	return names, err
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
