package histories

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/repair"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
)

// Seeds of the random numbers of a log that is opened on an image, beside those of the
// history: a file's salt is new in each of its lives.
const (
	seedImage  = 1 << 32
	seedAgain  = 2 << 32
	perCutLook = 2 // images of a LookCut
)

// look is the looks at the log that follow a call.
func (m *machine) look(c *Call) error {
	for _, look := range []struct {
		which Look
		name  string
		at    func(c *Call) error
	}{
		{LookReader, "a reader beside the owner", m.lookReader},
		{LookInspect, "verify", m.lookInspect},
		{LookRefused, "what is not legal", m.lookRefused},
		{LookKill, "after a kill", func(c *Call) error { return m.lookImage(c, killImage(m.disk), m.killed()) }},
		{LookCut, "after a power cut", m.lookCut},
		{LookBackup, "a backup", m.lookBackup},
		{LookRepair, "repair after a kill", m.lookRepair},
	} {
		if c.Look&look.which == 0 {
			continue
		}
		if err := look.at(c); err != nil {
			return fmt.Errorf("%s: %w", look.name, err)
		}
	}
	return nil
}

// killImage is what the death of the process leaves.
func killImage(disk *simdisk.FS) *simdisk.FS {
	r := disk.Remains()
	units := r.Units()
	return r.Image(func(k int) simdisk.Fate { return simdisk.Fate{State: units[k].States} })
}

func (m *machine) lookCut(c *Call) error {
	r := rand.New(rand.NewPCG(c.Seed, 4))
	remains := m.disk.Remains()
	for range perCutLook {
		if err := m.lookImage(c, remains.Random(r), m.want); err != nil {
			return err
		}
	}
	return nil
}

// lookImage opens the log on an image, goes on with it, and opens it again.
func (m *machine) lookImage(c *Call, image *simdisk.FS, want expectation) error {
	m.count.Images++
	run := m.run
	if r := rand.New(rand.NewPCG(c.Seed, 5)); r.IntN(4) == 0 {
		run.Policy = Policy(r.IntN(3))
	}
	run.Async = false
	d, b, err := openOn(image, seedImage+m.opens, c.Seed%2 == 0, run.options(new(mmapwal.Options)))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	s, err := m.expected(d, want)
	if err != nil {
		return fmt.Errorf("opened: %w", err)
	}
	if s, err = m.goOn(d, s); err != nil {
		return err
	}
	b.end()
	if err := d.Close(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	if d, b, err = openOn(image, seedAgain+m.opens, true, run.options(new(mmapwal.Options))); err != nil {
		return fmt.Errorf("open again: %w", err)
	}
	if _, err := m.expected(d, exactly(s)); err != nil {
		return fmt.Errorf("opened again: %w", err)
	}
	image.CutAt(1) // nothing more is of interest
	b.end()
	_ = d.Close()
	image.Free()
	return nil
}

// goOn saves what a new leader has, in place of all that is not committed.
func (m *machine) goOn(d *mmapwal.DiskStorage, s *State) (*State, error) {
	term := max(s.Hard.Term, s.Term(s.Last())) + 1
	c := Call{Hard: Hard{term, 1, s.Commit()}, From: s.Commit() + 1, Entries: []Entry{{Term: term, Size: 100}}}
	if err := d.Save(c.Hard.proto(), m.entries(&c), nil); err != nil {
		return nil, fmt.Errorf("save: %w", err)
	}
	outcomes := c.outcomes(s, 0)
	return outcomes[len(outcomes)-1], nil
}

func (m *machine) lookReader(c *Call) error {
	m.count.Readers++
	o := m.run.options(new(mmapwal.Options))
	o.ReadOnly = true
	d, b, err := openOn(m.disk, seedImage, true, o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer b.end()
	if _, err := m.expected(d, m.killed()); err != nil {
		return errors.Join(err, d.Close())
	}
	return d.Close()
}

// lookRefused makes calls that are not legal.
func (m *machine) lookRefused(c *Call) error {
	s := m.state
	last, term := s.Last(), s.Term(s.Last())
	gap := Call{From: last + 2, Entries: []Entry{{Term: term + 1}}}
	back := Call{From: last + 1, Entries: []Entry{{Term: term - 1}}}
	for _, refused := range []struct {
		name string
		ok   bool // it is not legal here
		call func() error
		as   error
	}{
		{"a Save with a gap", true, func() error { return m.d.Save(nil, m.entries(&gap), nil) }, mmapwal.ErrInvalid},
		{"a Save of a lower term", term > 1, func() error { return m.d.Save(nil, m.entries(&back), nil) }, mmapwal.ErrInvalid},
		{"an older snapshot", s.Snap.Index > 0, func() error { return m.d.Save(nil, nil, m.data.snapshot(s.Snap, 0)) }, raft.ErrSnapOutOfDate},
		{"CreateSnapshot of an older one", s.Snap.Index > 0, func() error { return m.d.CreateSnapshot(s.Snap.Index, nil, nil) }, raft.ErrSnapOutOfDate},
		{"CreateSnapshot beyond the log", true, func() error { return m.d.CreateSnapshot(last+1, nil, nil) }, raft.ErrUnavailable},
		{"Compact beyond the snapshot", s.Snap.Index < last, func() error { return m.d.Compact(s.Snap.Index + 1) }, mmapwal.ErrInvalid},
		{"Compact of what is", true, func() error { return m.d.Compact(s.Base.Index) }, raft.ErrCompacted},
		{"TruncateEntriesUntil beyond the snapshot", true, func() error { return m.d.TruncateEntriesUntil(s.Snap.Index + 2) }, mmapwal.ErrInvalid},
	} {
		if !refused.ok {
			continue
		}
		if err := refused.call(); !errors.Is(err, refused.as) {
			return fmt.Errorf("%s: %v, want %v", refused.name, err, refused.as)
		}
	}
	return holds(m.d, s, m.data, rand.New(rand.NewPCG(c.Seed, 6)))
}

// wrapper returns the master key's, nil if the log is not encrypted.
func (m *machine) wrapper() encryption.KeyWrapper {
	if !m.run.Encrypted {
		return nil
	}
	w, err := encryption.NewKeyWrapper(masterKey())
	if err != nil {
		panic(err) // the key is a constant
	}
	return w
}

func (m *machine) lookInspect(*Call) error {
	if err := m.inspect(m.disk); err != nil {
		return fmt.Errorf("beside the owner: %w", err)
	}
	image := killImage(m.disk)
	defer image.Free()
	if err := m.inspect(image); err != nil {
		return fmt.Errorf("after a kill: %w", err)
	}
	return nil
}

// inspect compares what package inspect says of a directory with the state.
func (m *machine) inspect(fsys vfs.FS) error {
	m.count.Inspections++
	l, err := inspect.Look(context.Background(), fsys, logDir, inspect.Options{Check: true, Wrapper: m.wrapper()})
	if err != nil {
		return err
	}
	if l.Damaged() {
		return fmt.Errorf("damage where there is none: %+v", l.Problems)
	}
	s := m.state
	if got := (Position{l.Meta.Compacted.Index, l.Meta.Compacted.Term}); got != s.Base {
		return fmt.Errorf("compacted up to %v, not %v", got, s.Base)
	}
	if got := (Position{l.Meta.Snapshot.Index, l.Meta.Snapshot.Term}); got != s.Snap {
		return fmt.Errorf("snapshot %v, not %v", got, s.Snap)
	}
	next := s.Base.Index + 1
	err = l.Each(context.Background(), 0, math.MaxUint64, func(e inspect.Entry) error {
		if e.Err != nil || e.Index != next || e.Index > s.Last() {
			return fmt.Errorf("entry %d, not %d, of %d to %d: %w", e.Index, next, s.Base.Index+1, s.Last(), e.Err)
		}
		want := m.data.entry(next, s.At(next))
		if e.Term != want.GetTerm() || e.Type != uint32(want.GetType()) || !e.Cleared && !bytes.Equal(e.Data, want.GetData()) || e.Cleared && next >= s.Cleared {
			return fmt.Errorf("entry %d is of term %d, type %d, with %d bytes, cleared %v; it should be of term %d, with %d", next, e.Term, e.Type, len(e.Data), e.Cleared, want.GetTerm(), len(want.GetData()))
		}
		next++
		return nil
	})
	if err == nil && next != s.Last()+1 {
		err = fmt.Errorf("the entries end at %d, not %d", next-1, s.Last())
	}
	return err
}

// lookBackup makes a backup, whole or behind an earlier one, and restores it.
func (m *machine) lookBackup(c *Call) error {
	m.count.Backups++
	var b bytes.Buffer
	var err error
	ctx, parts := context.Background(), []io.Reader{&b}
	if m.full == nil || c.Seed%2 == 0 {
		if m.manifest, err = m.d.Backup(ctx, &b); err == nil {
			m.full = bytes.Clone(b.Bytes())
		}
	} else {
		_, err = m.d.BackupSince(ctx, &b, m.manifest)
		parts = []io.Reader{bytes.NewReader(m.full), &b}
	}
	if err != nil {
		return err
	}
	dir := filepath.Join(m.dirs(), "restored")
	defer os.RemoveAll(filepath.Dir(dir))
	o := m.run.options(&mmapwal.Options{Logger: slog.New(slog.DiscardHandler), ReadOnly: true})
	o.FileDataSize = 0 // the real one
	if _, err := backup.Restore(ctx, dir, &backup.RestoreOptions{Key: o.Key}, parts...); err != nil {
		return err
	}
	d, err := mmapwal.Open(dir, o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if _, err = m.expected(d, m.killed()); err != nil {
		err = fmt.Errorf("restored: %w", err)
	}
	return errors.Join(err, d.Close())
}

// lookRepair: of a log that is not damaged there is nothing to repair.
func (m *machine) lookRepair(*Call) error {
	m.count.Repairs++
	image := killImage(m.disk)
	defer image.Free()
	dir := m.dirs()
	defer os.RemoveAll(dir)
	if err := writeOut(image, dir); err != nil {
		return err
	}
	p, err := repair.Rehearse(context.Background(), dir, repair.Options{Wrapper: m.wrapper()})
	if err != nil {
		return err
	}
	defer p.Close()
	if r := p.Report; r.Damaged || r.Needed || r.Refused != "" || r.Lost != nil || r.More || r.Stale {
		return fmt.Errorf("there is something to repair: %+v", r)
	}
	return nil
}

// writeOut copies the log's directory to one of the real file system.
func writeOut(disk vfs.FS, dir string) error {
	infos, err := disk.List(logDir)
	if err != nil {
		return err
	}
	for _, info := range infos {
		if err := writeOutFile(disk, info, filepath.Join(dir, info.Name)); err != nil {
			return err
		}
	}
	return nil
}

func writeOutFile(disk vfs.FS, info vfs.Info, path string) (err error) {
	from, err := disk.Open(filepath.Join(logDir, info.Name), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := to.Truncate(info.Size); err != nil {
		return err
	}
	for end := int64(0); ; {
		start, next, err := from.Data(end)
		if err != nil || start == next {
			return err
		}
		p := make([]byte, next-start)
		if _, err := from.ReadAt(p, start); err != nil && err != io.EOF {
			return err
		}
		if _, err := to.WriteAt(p, start); err != nil {
			return err
		}
		end = next
	}
}
