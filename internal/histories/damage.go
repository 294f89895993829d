package histories

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/repair"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
)

// Damages says what came of damages.
type Damages struct {
	Count    int // damages
	Harmless int // the engine opens the log as it was
	AtOpen   int // it refuses
	AtRead   int // it opens, and tells when entries or the snapshot are read
	Torn     int // it opens without entries that a power cut may take
	Repaired int // without a loss
	Lost     int // repaired, with a loss
	Refused  int // by repair
}

// Add adds another one.
func (d *Damages) Add(other Damages) {
	d.Count += other.Count
	d.Harmless += other.Harmless
	d.AtOpen += other.AtOpen
	d.AtRead += other.AtRead
	d.Torn += other.Torn
	d.Repaired += other.Repaired
	d.Lost += other.Lost
	d.Refused += other.Refused
}

func (d Damages) String() string {
	return fmt.Sprintf("%d damages: %d harmless, %d found at open, %d at read, %d torn off; repaired %d without loss, %d with, %d refused",
		d.Count, d.Harmless, d.AtOpen, d.AtRead, d.Torn, d.Repaired, d.Lost, d.Refused)
}

// Damage runs the history of a seed without looks, and damages what its log leaves behind when
// it is killed, or closed, so many times, each time anew. The error says which damage it was.
func Damage(seed uint64, times int, dirs func() string) (sum Damages, err error) {
	g := NewGenerator(seed, false)
	g.shape.looks = [len(g.shape.looks)]int{}
	p := Program{Open: g.Settings()}
	m, err := newMachine(&p, dirs)
	if err != nil {
		return sum, err
	}
	defer m.end()
	for range g.Length() {
		c := g.Next(m.state)
		p.Calls = append(p.Calls, c)
		if err := m.do(&c); err != nil {
			return sum, &Failure{p, err.Error()}
		}
	}
	want := m.killed()
	if g.r.IntN(2) == 0 {
		m.b.end()
		d := m.d
		m.d = nil
		if err := d.Close(); err != nil {
			return sum, err
		}
		want = exactly(m.state)
	}
	for range times {
		h := &harm{m: m, r: g.r, want: want, closed: m.d == nil}
		if err := h.run(); err != nil {
			return sum, fmt.Errorf("%s: %w\nthe log was\n\t%v\n\t%v, closed %v", h.what, err, m.state, m.run, h.closed)
		}
		sum.Add(h.sum)
	}
	return sum, nil
}

// harm is one damage, and what is said of it.
type harm struct {
	m      *machine
	r      *rand.Rand
	want   expectation // of the log as it was
	closed bool
	file   string // base name
	what   string
	spoil  func(disk *simdisk.FS) error
	sum    Damages
}

// run damages the log, and compares what is said of it.
func (h *harm) run() error {
	if err := h.choose(); err != nil {
		return err
	}
	h.sum.Count++
	read, err := h.engine()
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if err := h.inspect(read); err != nil {
		return fmt.Errorf("inspect: %w", err)
	}
	if err := h.keepPrefix(); err != nil {
		return fmt.Errorf("KeepValidPrefix: %w", err)
	}
	if err := h.repair(read); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	return nil
}

// choose picks a damage.
func (h *harm) choose() error {
	infos, err := h.m.disk.List(logDir)
	if err != nil {
		return err
	}
	infos = slices.DeleteFunc(infos, func(i vfs.Info) bool { return strings.HasSuffix(i.Name, entryfile.SpareSuffix) })
	info := infos[h.r.IntN(len(infos))]
	alone := len(infos) == 1 // without it there is no log
	h.file = info.Name
	at, err := h.place(info)
	if err != nil {
		return err
	}
	edit := func(off, n int64, to func(p []byte)) func(disk *simdisk.FS) error {
		return func(disk *simdisk.FS) error { return spoilBytes(disk, info.Name, off, n, to) }
	}
	zero := func(p []byte) { clear(p) }
	switch n := h.r.IntN(10); {
	case n < 4 || alone && n == 9:
		bit := byte(1) << h.r.IntN(8)
		h.what, h.spoil = fmt.Sprintf("%s: bit %#x of byte %d flipped", h.file, bit, at), edit(at, 1, func(p []byte) { p[0] ^= bit })
	case n < 6:
		h.what, h.spoil = fmt.Sprintf("%s: sector at %d zeroed", h.file, at&^511), edit(at&^511, 512, zero)
	case n < 7:
		h.what, h.spoil = fmt.Sprintf("%s: page at %d zeroed", h.file, at&^4095), edit(at&^4095, 4096, zero)
	case n < 9:
		h.what, h.spoil = fmt.Sprintf("%s: cut at %d", h.file, at), func(disk *simdisk.FS) error { return truncate(disk, info.Name, at) }
	default:
		h.what, h.spoil = h.file+": removed", func(disk *simdisk.FS) error { return disk.Remove(filepath.Join(logDir, info.Name)) }
	}
	return nil
}

// place picks a byte of what was stored of a file.
func (h *harm) place(info vfs.Info) (int64, error) {
	f, err := h.m.disk.Open(filepath.Join(logDir, info.Name), true)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var stored [][2]int64
	for end := int64(0); ; {
		start, next, err := f.Data(end)
		if err != nil {
			return 0, err
		}
		if start == next {
			break
		}
		stored = append(stored, [2]int64{start, next})
		end = next
	}
	if len(stored) == 0 {
		return 0, nil
	}
	run := stored[h.r.IntN(len(stored))]
	if h.r.IntN(3) == 0 {
		run[1] = min(run[1], run[0]+600)
	}
	return run[0] + h.r.Int64N(run[1]-run[0]), nil
}

func spoilBytes(disk *simdisk.FS, name string, off, n int64, to func(p []byte)) (err error) {
	f, err := disk.Open(filepath.Join(logDir, name), false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	p := make([]byte, n)
	got, err := f.ReadAt(p, off)
	if err != nil && err != io.EOF || got == 0 {
		return err
	}
	to(p[:got])
	_, err = f.WriteAt(p[:got], off)
	return err
}

func truncate(disk *simdisk.FS, name string, size int64) (err error) {
	f, err := disk.Open(filepath.Join(logDir, name), false)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// image returns a copy of the log, damaged.
func (h *harm) image() (*simdisk.FS, error) {
	image := killImage(h.m.disk)
	return image, h.spoil(image)
}

// reading is what the engine says of a damaged log.
type reading struct {
	err     error // of Open
	state   *State
	entries map[uint64]Entry // those that can be read
	errs    []error          // of reads
}

// whole reports whether the log opened, and all could be read.
func (r *reading) whole() bool { return r.err == nil && len(r.errs) == 0 }

// engine opens the log, and reads all of it. It is as it was, or an error tells, or what is
// missing is what a power cut may take.
func (h *harm) engine() (*reading, error) {
	image, err := h.image()
	if err != nil {
		return nil, err
	}
	defer image.Free()
	d, b, err := openOn(image, seedImage, true, h.m.run.options(new(mmapwal.Options)))
	if err != nil {
		h.sum.AtOpen++
		if !isDamage(err) {
			return nil, fmt.Errorf("an error that tells of no damage: %w", err)
		}
		return &reading{err: err}, nil
	}
	r, err := h.readAll(d)
	b.end()
	if closed := d.Close(); err != nil || closed != nil && !isDamage(closed) {
		return nil, errors.Join(err, closed)
	}
	if err := h.judge(r); err != nil {
		return nil, err
	}
	return r, h.again(image, r)
}

// again opens the log once more: nothing has become worse by having it open.
func (h *harm) again(image *simdisk.FS, before *reading) error {
	d, b, err := openOn(image, seedAgain, true, h.m.run.options(new(mmapwal.Options)))
	if err != nil {
		return fmt.Errorf("it was open, and closed, and does not open again: %w", err)
	}
	defer func() { b.end(); _ = d.Close() }()
	r, err := h.readAll(d)
	if err != nil {
		return err
	}
	if len(r.entries) < len(before.entries) || !r.same(before.state) {
		return fmt.Errorf("it was open, and closed, and holds\n\t%v\nnot\n\t%v", r.state, before.state)
	}
	return nil
}

// isDamage reports whether an error of Open tells of damage: of a directory of which too little
// is left it may be that it is no log.
func isDamage(err error) bool {
	return errors.Is(err, mmapwal.ErrCorrupt) || errors.Is(err, mmapwal.ErrForeign) || errors.Is(err, mmapwal.ErrVersion) ||
		errors.Is(err, mmapwal.ErrTampered) || errors.Is(err, mmapwal.ErrWrongKey)
}

// readAll reads each entry by itself. What can be read was saved.
func (h *harm) readAll(d *mmapwal.DiskStorage) (*reading, error) {
	first, err1 := d.FirstIndex()
	last, err2 := d.LastIndex()
	hard, err3 := d.HardState()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	r := &reading{entries: make(map[uint64]Entry), state: &State{
		Hard: Hard{hard.GetTerm(), hard.GetVote(), hard.GetCommit()},
		Snap: Position{d.Uint(mmapwal.SnapshotIndex), d.Uint(mmapwal.SnapshotTerm)},
		Base: Position{Index: first - 1},
	}}
	for i := first; i <= last; i++ {
		es, err := d.Entries(i, i+1, math.MaxUint64)
		if err != nil {
			if !isCleared(h.m.state, i, err) {
				r.errs = append(r.errs, fmt.Errorf("entry %d: %w", i, err))
			}
			r.state.Entries = append(r.state.Entries, Entry{})
			continue
		}
		e := Entry{es[0].GetTerm(), es[0].GetType(), len(es[0].GetData())}
		if err := h.wasSaved(i, e, es[0].GetData()); err != nil {
			return nil, err
		}
		r.entries[i] = e
		r.state.Entries = append(r.state.Entries, e)
	}
	if _, err := d.Snapshot(); err != nil {
		r.errs = append(r.errs, fmt.Errorf("snapshot: %w", err))
	} else if err := holdsSnapshot(d, h.m.state, h.m.data); err != nil {
		return nil, err
	}
	for _, err := range r.errs {
		if !isDamage(err) {
			return nil, fmt.Errorf("an error that tells of no damage: %w", err)
		}
	}
	return r, nil
}

// isCleared reports whether an error is that of an entry whose data was cleared.
func isCleared(s *State, i uint64, err error) bool {
	return i < s.Cleared && errors.Is(err, raft.ErrCompacted)
}

// wasSaved compares an entry that was read with the one that was saved at its index and
// term.
func (h *harm) wasSaved(i uint64, e Entry, data []byte) error {
	saved, known := h.m.saved[Position{i, e.Term}]
	if known && saved == e && string(h.m.data.entry(i, saved).GetData()) == string(data) {
		return nil
	}
	if known && saved.Type == e.Type && len(data) == 0 && i < h.m.state.Cleared {
		return nil
	}
	return fmt.Errorf("entry %d of term %d, type %d with %d bytes was never saved", i, e.Term, e.Type, e.Size)
}

// judge compares what was read with the log as it was.
func (h *harm) judge(r *reading) error {
	was := h.m.state
	if r.state.Snap != was.Snap || r.state.Base.Index != was.Base.Index {
		return fmt.Errorf("snapshot %v, entries behind %d", r.state.Snap, r.state.Base.Index)
	}
	if same := r.same(was); same && len(r.errs) > 0 {
		h.sum.AtRead++
		return nil
	} else if same {
		h.sum.Harmless++
		return nil
	}
	if slices.ContainsFunc(h.m.want.logs, r.same) && !h.closed && h.m.run.Policy != HardSync {
		h.sum.Torn++
		return nil
	}
	return fmt.Errorf("damage was not noticed: the log holds\n\t%v", r.state)
}

// same reports whether the log has all entries of a state, and no others, where it can be
// read.
func (r *reading) same(s *State) bool {
	if r.state.Last() != s.Last() || r.state.Base.Index != s.Base.Index {
		return false
	}
	for i, e := range r.entries {
		if e.Term != s.Term(i) {
			return false
		}
	}
	return true
}

// inspect compares what inspect says with what the engine does: of a log without damage all
// can be read; what the one can read the other can.
func (h *harm) inspect(r *reading) error {
	image, err := h.image()
	if err != nil {
		return err
	}
	defer image.Free()
	l, err := inspect.Look(context.Background(), image, logDir, inspect.Options{Check: true, Wrapper: h.m.wrapper()})
	if err != nil {
		if r.err == nil || !isDamage(err) && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if !l.Damaged() && !r.whole() {
		return fmt.Errorf("no damage is said, but the engine: %w, %v", r.err, r.errs)
	}
	if r.err != nil {
		return nil
	}
	seen := make(map[uint64]bool)
	err = l.Each(context.Background(), 0, math.MaxUint64, func(e inspect.Entry) error {
		if e.Err != nil || e.Cleared {
			return nil
		}
		seen[e.Index] = true
		if engine, ok := r.entries[e.Index]; !ok || engine.Term != e.Term {
			return fmt.Errorf("entry %d of term %d is shown; the engine reads %v, %v", e.Index, e.Term, engine, ok)
		}
		return nil
	})
	for i := range r.entries {
		if err == nil && !seen[i] && i >= h.m.state.Cleared {
			err = fmt.Errorf("entry %d is not shown, and the engine reads it", i)
		}
	}
	return err
}

// keepPrefix: what KeepValidPrefix leaves was saved, can be read, and has no gap.
func (h *harm) keepPrefix() error {
	image, err := h.image()
	if err != nil {
		return err
	}
	defer image.Free()
	o := h.m.run.options(new(mmapwal.Options))
	o.Recovery = mmapwal.KeepValidPrefix
	d, b, err := openOn(image, seedImage, true, o)
	if err != nil {
		if !isDamage(err) {
			return err
		}
		return nil
	}
	defer func() { b.end(); _ = d.Close() }()
	r, err := h.readAll(d)
	if err != nil {
		return err
	}
	errs := slices.DeleteFunc(r.errs, func(err error) bool { return strings.HasPrefix(err.Error(), "snapshot") })
	return errors.Join(errs...)
}

// repair holds the words of a repair against what really changes.
func (h *harm) repair(r *reading) error {
	image, err := h.image()
	if err != nil {
		return err
	}
	defer image.Free()
	root := h.m.dirs()
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "log")
	if err := errors.Join(os.Mkdir(dir, 0o700), writeOut(image, dir)); err != nil {
		return err
	}
	p, err := repair.Rehearse(context.Background(), dir, repair.Options{Wrapper: h.m.wrapper()})
	if err != nil {
		if r.err == nil || !isDamage(err) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("rehearse: %w", err)
		}
		return nil
	}
	defer p.Close()
	if p.Report.Refused != "" {
		h.sum.Refused++
		return nil
	}
	if p.Report.Needed {
		if err := p.Execute(context.Background(), filepath.Join(root, "backup")); err != nil {
			return fmt.Errorf("execute: %w", err)
		}
	}
	if err := p.Close(); err != nil {
		return err
	}
	return h.repaired(dir, &p.Report)
}

// repaired compares a log that was repaired with what the report says.
func (h *harm) repaired(dir string, report *repair.Report) error {
	o := h.m.run.options(&mmapwal.Options{Logger: slog.New(slog.DiscardHandler)})
	o.FileDataSize = 0
	d, err := mmapwal.Open(dir, o)
	if err != nil {
		if !report.Needed || len(report.Remains) > 0 {
			return nil // it is not said to be healed
		}
		return fmt.Errorf("open after the repair: %w", err)
	}
	defer d.Close()
	r, err := h.readAll(d)
	if err != nil {
		return err
	}
	was, differs := h.m.state, uint64(math.MaxUint64)
	for i := max(was.Base.Index, r.state.Base.Index) + 1; i <= was.Last() && differs > i; i++ {
		if e, ok := r.entries[i]; i > r.state.Last() || ok && e.Term != was.Term(i) {
			differs = i
		}
	}
	switch {
	case differs == math.MaxUint64:
		h.sum.Repaired++
		return nil
	case !report.Loses() && !h.mayBeTorn(r):
		return fmt.Errorf("nothing is said to be lost, but from entry %d on the log differs: it is\n\t%v\nof the report %+v", differs, r.state, report)
	case report.Lost != nil && report.Lost.First > differs && (report.MayDiffer == nil || report.MayDiffer.First > differs):
		return fmt.Errorf("lost is said to be %+v, may differ %+v, but from entry %d on the log differs: it is\n\t%v", *report.Lost, report.MayDiffer, differs, r.state)
	}
	h.sum.Lost++
	return nil
}

// mayBeTorn: what is missing is what a power cut may take.
func (h *harm) mayBeTorn(r *reading) bool {
	return !h.closed && h.m.run.Policy != HardSync && slices.ContainsFunc(h.m.want.logs, r.same)
}
