package mmapwal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// Manifest says what a backup holds: see Backup. BackupSince needs nothing else of
// an earlier backup. It can be kept as JSON.
type Manifest = archive.Manifest

// ErrChanged: the owner of a log that is open for reading only here has removed or
// cleared entries while a backup of them was made. Open it again, and make a new one.
var ErrChanged = errors.New("mmapwal: the owner has changed what was being backed up")

// Backup writes the log as it is now to w, as a tar stream, while Saves go on: they
// are held up by the time that it takes to note where each file ends, not by the
// copying. Every record is checked on its way. Package backup makes a log of it
// again. Of an encrypted log the backup is encrypted, by the same keys, and authenticated:
// with the key only what this log's key made can be restored.
//
// What the backup holds is the log at one moment during the call: entries up to the
// last one then, hard state, snapshot, ids. Under every sync policy that includes
// what was not synced. Until it returns nil, w has no backup, and what it has is refused
// by a restore. While it runs, TruncateEntriesUntil gives no disk blocks back.
// Close does not wait for w: Backup then fails with ErrClosed.
//
// Errors: ctx.Err(), looked at for every 256 KiB; that of w; *CorruptError for
// damage, of which no backup is made; ErrPoisoned, ErrClosed, ErrFault; of a log
// that is open for reading only, ErrChanged.
func (d *DiskStorage) Backup(ctx context.Context, w io.Writer) (Manifest, error) {
	return d.backup(ctx, w, nil)
}

// BackupSince is Backup of what is new since the backup with the manifest parent:
// files, and parts of files. To restore it, parent's backup is needed as well, and
// those that it builds on in turn. Compactions, and suffixes that were replaced in
// between, come out right; the more was saved anew, the larger it is. parent may be
// from before the log was restored, not from a copy of the directory that went on by
// itself.
//
// Of an encrypted log, parent's MAC is checked. If parent is from before the log was
// encrypted, the increment has all of the log, since nothing vouches for parent.
//
// Errors: those of Backup; ErrInvalid if parent is of another log; ErrTampered if it was not
// made with the key of this one.
func (d *DiskStorage) BackupSince(ctx context.Context, w io.Writer, parent Manifest) (Manifest, error) {
	return d.backup(ctx, w, &parent)
}

func (d *DiskStorage) backup(ctx context.Context, w io.Writer, parent *Manifest) (m Manifest, err error) {
	if ctx == nil || w == nil {
		return m, invalidf("Backup: the context or the writer is nil")
	}
	c, err := d.cut()
	if err != nil {
		return m, fmt.Errorf("mmapwal: back up %q: %w", d.dir, d.explain(err))
	}
	defer func() { err = errors.Join(err, c.release()) }()
	b := &backup{d: d, ctx: ctx, out: archive.NewWriter(w, c.manifest.Created), parent: parent, buf: make([]byte, copyStep)}
	if err := c.explain(b.write(c)); err != nil {
		return m, fmt.Errorf("mmapwal: back up %q: %w", d.dir, err)
	}
	return c.manifest, nil
}

// cut is the log as it was at one moment.
type cut struct {
	d        *DiskStorage
	manifest Manifest                  // without Files and Stream
	meta     []byte                    // content of wal.meta
	auth     *encryption.Authenticator // nil: not encrypted
	snapshot *metafile.SnapshotFile
	name     string // of the snapshot file
	files    []fileCut
}

type fileCut struct {
	entryfile.Cut
	first, last uint64 // live indexes; 0 and 0 if there are none
}

// cut notes where the log ends. The files are then pinned, and no block of them is
// given back, until release.
func (d *DiskStorage) cut() (c *cut, err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	v := d.snapshotView()
	if v.closed {
		return nil, ErrClosed
	}
	if err := d.poisoned(); err != nil {
		return nil, err
	}
	c = &cut{d: d}
	d.backups.Add(1)
	defer func() {
		if err != nil {
			err = errors.Join(err, c.release())
		}
	}()
	for _, s := range slices.Backward(d.files) { // they are sealed from the first one on meanwhile
		f, err := s.file.Cut()
		if err != nil {
			return c, err
		}
		fc := fileCut{Cut: f}
		if s.file == d.tail {
			s.first, s.last = s.file.First(), s.file.Last()
		}
		if s.first <= s.last {
			fc.first, fc.last = s.first, s.last
		}
		c.files = append(c.files, fc)
	}
	slices.Reverse(c.files)
	return c, c.describe(v)
}

// describe makes wal.meta and the manifest. wal.meta says that the log was not
// closed: so the slots and the seal of the last file need not be made up here, and
// recovery, which knows the end, finds just what is there.
func (c *cut) describe(v *view) (err error) {
	m := v.meta
	m.Clean, m.Durable, m.HardState, m.Behind = false, metafile.End{}, v.hard, metafile.End{}
	if n := len(c.files); n > 0 {
		f := &c.files[n-1]
		m.Durable = metafile.End{File: f.Header().Number, Offset: f.End(), Salt: f.Header().Salt}
	}
	m.HardState.Commit = min(max(m.HardState.Commit, m.Snapshot.Index), v.last)
	if m.SnapshotInFile {
		c.name = metafile.SnapshotName(m.Snapshot)
		if c.snapshot = c.d.snapshot; c.snapshot == nil {
			if c.snapshot, err = c.d.meta.OpenSnapshot(&m); err != nil {
				return err
			}
		}
	}
	c.manifest = Manifest{
		Version: archive.Version, Created: time.Now().UTC(), LogID: fmt.Sprintf("%016x", m.LogID),
		RaftID: m.RaftID, GroupID: m.GroupID, Checkpoint: m.Checkpoint, Encrypted: m.Encrypted,
		First: v.first(), Last: v.last, Snapshot: archive.Position(m.Snapshot),
	}
	for k := range c.files {
		if m.Encrypted && len(c.files[k].Header().WrappedKey) == 0 {
			c.manifest.PlainFiles++
		}
	}
	if m.SnapshotPlain {
		c.manifest.PlainFiles++
	}
	if h := m.HardState; h.Stored {
		c.manifest.HardState = &archive.HardState{Term: h.Term, Vote: h.Vote, Commit: h.Commit}
	}
	if m.Encrypted {
		if c.auth, err = c.d.meta.Keys().NewAuthenticator(); err != nil {
			return err
		}
	}
	c.meta, err = c.d.meta.Image(m)
	return err
}

func (c *cut) release() error {
	c.d.backups.Add(-1)
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Release())
	}
	if c.snapshot != nil && c.snapshot != c.d.snapshot {
		errs = append(errs, c.snapshot.Close())
	}
	return errors.Join(errs...)
}

// unchanged makes sure of a log that is open for reading only, whose owner nothing
// holds up: a file that has its name still was not used anew while it was read.
func (c *cut) unchanged() error {
	if !c.d.opts.ReadOnly {
		return nil
	}
	infos, err := c.d.fsys.List(c.d.dir)
	if err != nil {
		return err
	}
	for _, f := range c.files {
		name := entryfile.Name(f.Header().Number)
		there := slices.ContainsFunc(infos, func(info vfs.Info) bool { return info.Name == name })
		changed, err := f.Changed()
		if err != nil {
			return err
		}
		if changed || !there {
			return fmt.Errorf("%s: %w", filepath.Join(c.d.dir, name), ErrChanged)
		}
	}
	return nil
}

// explain says of a log that is open for reading only that its owner has changed what was
// copied, if it was that and no damage.
func (c *cut) explain(err error) error {
	if !c.d.opts.ReadOnly || !lookedLost(err) {
		return err
	}
	if changed := c.unchanged(); errors.Is(changed, ErrChanged) {
		return changed
	}
	return c.d.explain(err)
}

// explain does so where there is no cut.
func (d *DiskStorage) explain(err error) error {
	if d.opts.ReadOnly && lookedLost(err) && d.movedOn() {
		return ErrChanged
	}
	return err
}

// movedOn reports whether the owner has dropped or cleared entries since the log was opened.
func (d *DiskStorage) movedOn() bool {
	d.refreshing.Lock()
	defer d.refreshing.Unlock()
	if d.meta.Refresh() != nil {
		return false
	}
	now, m := d.meta.Meta(), &d.found
	return now.FirstFile != m.FirstFile || now.ClearedBelow != m.ClearedBelow || now.ClearedEnd != m.ClearedEnd
}

// backup writes a cut.
type backup struct {
	d      *DiskStorage
	ctx    context.Context
	out    *archive.Writer
	parent *Manifest // nil: a full backup, or nothing of it is relied on
	buf    []byte
}

// copyStep is how many bytes are copied between two looks at whether to go on.
const copyStep = 256 << 10

func (b *backup) write(c *cut) error {
	m := &c.manifest
	if b.parent != nil {
		if err := b.adoptParent(c); err != nil {
			return err
		}
	}
	add := func(s *source, err error) error {
		if err != nil {
			return err
		}
		f, err := b.writeFile(s)
		m.Files = append(m.Files, f)
		return err
	}
	for k := range c.files {
		if err := add(b.entries(&c.files[k])); err != nil {
			return err
		}
	}
	if c.snapshot != nil {
		if err := add(b.snapshot(c)); err != nil {
			return err
		}
	}
	meta := &source{name: metafile.Name, size: int64(len(c.meta)), head: inMemory(c.meta)}
	if err := add(meta, nil); err != nil {
		return err
	}
	if err := b.reading(c.unchanged); err != nil {
		return err
	}
	b.out.Authenticate(c.auth)
	return b.out.Finish(m)
}

// adoptParent makes the backup an increment. Of an encrypted log's parents, what they say is
// relied on only if they were made with its key: somebody may have changed them. One from
// before the log was encrypted tells its name, so that the chain goes on, and nothing else.
func (b *backup) adoptParent(c *cut) error {
	m := &c.manifest
	if b.parent.LogID != m.LogID {
		return invalidf("the parent is a backup of the log %s, this one is %s", b.parent.LogID, m.LogID)
	}
	m.Parent = b.parent.Hash()
	switch {
	case c.auth == nil:
		return nil
	case !b.parent.Encrypted:
		b.parent = nil
		return nil
	case !b.parent.Authentic(c.auth):
		return fmt.Errorf("%w: the parent's manifest was not made with the key of this log, or was changed: make a full backup", ErrTampered)
	}
	return nil
}

// source is a file to be copied.
type source struct {
	name        string
	size        int64 // bytes
	first, last uint64
	header      []byte // tells the file from others of its name; nil: nothing does
	final       bool   // and from itself at other times: nothing is appended any more
	head        func() ([]entryfile.Piece, error)
	data        []entryfile.Extent
	content     io.ReaderAt // of data
	// check judges the bytes of e from its start on, and returns up to where it
	// did; nil: they are not judged.
	check func(e entryfile.Extent) (to int64, err error)
}

func inMemory(p []byte) func() ([]entryfile.Piece, error) {
	return func() ([]entryfile.Piece, error) { return []entryfile.Piece{{Bytes: p}}, nil }
}

// entries returns an entry file.
func (b *backup) entries(c *fileCut) (*source, error) {
	header := c.HeaderPage()
	s := &source{
		name: entryfile.Name(c.Header().Number), size: c.Header().Size, first: c.first, last: c.last,
		header: header.Bytes, final: c.Header().Sealed, content: c, check: c.Check,
	}
	s.head = func() ([]entryfile.Piece, error) {
		slots, err := c.Slots()
		return []entryfile.Piece{header, {Bytes: slots}}, err
	}
	err := b.reading(func() (err error) {
		s.data, err = c.Records()
		return err
	})
	return s, err
}

// snapshot returns the snapshot file. Its header has the checksum of the rest.
func (b *backup) snapshot(c *cut) (*source, error) {
	const start = metafile.SnapshotHeaderBytes
	header := make([]byte, start)
	err := b.reading(func() error {
		_, err := c.snapshot.ReadAt(header, 0)
		return err
	})
	size := c.snapshot.Size()
	s := &source{name: c.name, size: size, header: header, final: true, head: inMemory(header)}
	if size > start {
		s.data = []entryfile.Extent{{From: start, To: size}}
	}
	want, before := c.snapshot.Sum()
	sum := before
	s.content = readerAt(func(p []byte, off int64) (int, error) {
		n, err := c.snapshot.ReadAt(p, off)
		if off == start {
			sum = before
		}
		sum = page.Sum(sum, p[:n])
		if err == nil && off+int64(n) == size && sum != want {
			err = corrupt.At(filepath.Join(b.d.dir, c.name), 0, "the snapshot is damaged: its checksum does not match")
		}
		return n, err
	})
	return s, err
}

type readerAt func(p []byte, off int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// reading runs read, which Close waits for.
func (b *backup) reading(read func() error) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if _, err := b.d.beginRead(); err != nil {
		return err
	}
	defer b.d.reads.Done()
	return read()
}

// writeFile writes what the parent does not have of s.
func (b *backup) writeFile(s *source) (f archive.File, err error) {
	f = archive.File{Name: s.name, Size: s.size, First: s.first, Last: s.last}
	if s.header != nil {
		f.Header = digest(sha256.Sum256(s.header))
	}
	old := b.inParent(&f)
	sameHead := old != nil && f.Header != "" && old.Header == f.Header
	if sameHead && s.final {
		f.Head, f.Data, f.Based = old.Head, old.Data, true
		return f, nil
	}
	rest := s.data
	if grown(old, s) {
		if f.Based, err = b.compare(s, old.Data); err != nil {
			return f, err
		}
	}
	if f.Based {
		f.Data = slices.Clone(old.Data)
		rest = []entryfile.Extent{{From: end(old.Data), To: s.data[0].To}}
	}
	if f.Based && sameHead {
		f.Head = old.Head
	} else if err := b.writeHead(s, &f); err != nil {
		return f, err
	}
	return f, b.writeData(s, rest, &f)
}

func (b *backup) inParent(f *archive.File) *archive.File {
	if b.parent == nil {
		return nil
	}
	return b.parent.Find(f.Name)
}

// grown reports whether s can be what has become of old by appending.
func grown(old *archive.File, s *source) bool {
	if old == nil || old.Size != s.size || len(old.Data) == 0 || len(s.data) != 1 {
		return false
	}
	at := s.data[0].From
	for _, r := range old.Data {
		if r.Offset != at {
			return false
		}
		at += r.Bytes
	}
	return at <= s.data[0].To
}

func end(ranges []archive.Range) int64 {
	last := ranges[len(ranges)-1]
	return last.Offset + last.Bytes
}

// compare reports whether s still begins with what the parent has of it.
func (b *backup) compare(s *source, old []archive.Range) (same bool, err error) {
	unjudged := *s // another copy of the log may have no record where one of these ends
	unjudged.check = nil
	for _, r := range old {
		sum := sha256.New()
		if err := b.copy(&unjudged, entryfile.Extent{From: r.Offset, To: r.Offset + r.Bytes}, sum); err != nil {
			return false, err
		}
		if hex.EncodeToString(sum.Sum(nil)) != r.SHA256 {
			return false, nil
		}
	}
	return true, nil
}

func (b *backup) writeHead(s *source, f *archive.File) error {
	var pieces []entryfile.Piece
	err := b.reading(func() (err error) {
		pieces, err = s.head()
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range pieces {
		if len(p.Bytes) == 0 {
			continue
		}
		r := archive.Range{Offset: p.Offset, Bytes: int64(len(p.Bytes))}
		if err := b.out.Begin(s.name, r.Offset, r.Bytes); err != nil {
			return err
		}
		if _, err := b.out.Write(p.Bytes); err != nil {
			return err
		}
		r.SHA256 = b.out.End()
		f.Head = append(f.Head, r)
		f.Stored += r.Bytes
	}
	return nil
}

func (b *backup) writeData(s *source, extents []entryfile.Extent, f *archive.File) error {
	for _, e := range extents {
		if e.From == e.To {
			continue
		}
		r := archive.Range{Offset: e.From, Bytes: e.To - e.From}
		if err := b.out.Begin(s.name, r.Offset, r.Bytes); err != nil {
			return err
		}
		if err := b.copy(s, e, b.out); err != nil {
			return err
		}
		r.SHA256 = b.out.End()
		f.Data = append(f.Data, r)
		f.Stored += r.Bytes
	}
	return nil
}

// copy copies the bytes of e to w, and checks them.
func (b *backup) copy(s *source, e entryfile.Extent, w io.Writer) error {
	checked := e.From
	for at := e.From; at < e.To; {
		n := 0
		err := b.reading(func() (err error) {
			if checked == at {
				if checked, err = s.judge(entryfile.Extent{From: at, To: e.To}); err != nil {
					return err
				}
			}
			n = int(min(int64(len(b.buf)), checked-at))
			_, err = s.content.ReadAt(b.buf[:n], at)
			return err
		})
		if err != nil {
			return err
		}
		if _, err := w.Write(b.buf[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

func (s *source) judge(e entryfile.Extent) (int64, error) {
	if s.check == nil {
		return e.To, nil
	}
	return s.check(e)
}

func digest(sum [sha256.Size]byte) string { return hex.EncodeToString(sum[:]) }
