package mmapwal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/chain"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// loaded is an entry file as Open found it.
type loaded struct {
	file *entryfile.File
	scan *entryfile.Scan // of a file that was not sealed, and had to be read
}

// first and last return the range of live indexes, 0 and 0 if there is none.
func (l loaded) first() uint64 {
	if l.scan != nil {
		return l.scan.Index.First()
	}
	return l.file.First()
}

func (l loaded) last() uint64 {
	if l.scan != nil {
		return l.scan.Index.Last()
	}
	return l.file.Last()
}

// held returns the same as a range.
func (l loaded) held() chain.Range { return chain.Range{First: l.first(), Last: l.last()} }

// loadFiles opens the live entry files, judges them, and recovers what an
// unclean stop left behind. On return d.files is the log.
//
// What a file that is not sealed may show, and what it means:
//
//	stop     its records end                  then
//	clean    where wal.meta says              go on in it
//	clean    elsewhere                        corrupt
//	unclean  before an end known durable      corrupt
//	unclean  and a witness follows            corrupt
//	unclean  with the one that ends the file  end the file there; the next one goes on
//	unclean  without, and a later file, or
//	         wal.meta, vouches for all of it  corrupt
//	unclean  anywhere else                    that is the end of the log: end the file
//	                                          there; what later files hold was not promised
//
// A file is ended by a record that says so, and sealed in the background as any other; or
// sealed at once, if the log is encrypted, if damage behind that end was put up with, or if
// there is no room for the record.
func (d *DiskStorage) loadFiles(inv *inventory) error {
	m := d.meta.Meta()
	numbers := inv.live(m)
	if n := len(numbers); n > 0 {
		d.next = numbers[n-1] + 1
	}
	// No number that wal.meta speaks of is given to another file, nor a spare's.
	d.next = max(d.next, m.FirstFile, m.Durable.File+1, m.ClearedEnd.File+1, inv.lastSpare()+1)
	if inv.foreign > 0 {
		d.next = max(d.next, inv.foreign+1)
	}
	if d.opts.Recovery == KeepValidPrefix {
		if err := d.removeLeftovers(inv); err != nil {
			return err
		}
		return d.keepValidPrefix(numbers)
	}
	files, err := d.openFiles(numbers)
	if err != nil {
		return err
	}
	n, err := d.judge(files)
	if err != nil {
		return err
	}
	if err := d.believe(files[:n]); err != nil {
		return err
	}
	if d.opts.ReadOnly {
		d.adoptLoaded(files[:n])
		return nil
	}
	if err := d.removeLeftovers(inv); err != nil {
		return err
	}
	return d.recover(files, n)
}

// believe takes the hard state that the records of files, which are the log, bear out, and
// tells wal.meta, durably, before any of them is changed, if that is not the one it says.
func (d *DiskStorage) believe(files []loaded) error {
	m := d.meta.Meta()
	d.hard, d.checkpoint = m.HardState, m.Checkpoint
	if m.Clean {
		return nil
	}
	found := make([]metafile.End, 0, len(files))
	for _, l := range files {
		end := foundEnd(l.file)
		if l.scan != nil {
			end.Offset = l.scan.End
		}
		found = append(found, end)
	}
	d.hard, d.checkpoint = d.meta.Believed(found)
	if d.hard == m.HardState && d.checkpoint == m.Checkpoint {
		return nil
	}
	d.log.Warn("raftwal: entries were lost that were not promised, and the hard state that was stored behind them does not count",
		"dir", d.dir, "term", m.HardState.Term, "vote", m.HardState.Vote, "commit", m.HardState.Commit,
		"term_now", d.hard.Term, "vote_now", d.hard.Vote, "commit_now", d.hard.Commit)
	if d.opts.ReadOnly {
		return nil
	}
	m.HardState, m.Checkpoint = d.hard, d.checkpoint
	return d.meta.Commit(m)
}

// openFiles opens the files with the given numbers and reads those that are not
// sealed. Files that could be opened are in d.files from then on, to be closed.
func (d *DiskStorage) openFiles(numbers []uint64) ([]loaded, error) {
	m := d.meta.Meta()
	last := uint64(0)
	if len(numbers) > 0 {
		last = numbers[len(numbers)-1]
	}
	if m.Durable.File >= m.FirstFile && last < m.Durable.File {
		return nil, d.missing(m.Durable.File)
	}
	if err := d.checkAge(last); err != nil {
		return nil, err
	}
	files := make([]loaded, 0, len(numbers))
	for k, n := range numbers {
		l, err := d.openFile(n)
		if err != nil {
			return nil, err
		}
		if err := d.checkChain(l.file, k, numbers, files); err != nil {
			return nil, err
		}
		files = append(files, l)
	}
	return files, d.readFiles(files)
}

// readFiles reads the files that are not sealed, and has the disk read one while the one in
// front of it is looked at.
func (d *DiskStorage) readFiles(files []loaded) error {
	for k := range files {
		if files[k].file.Sealed() {
			continue
		}
		if k+1 < len(files) {
			files[k+1].file.Prefetch()
		}
		if err := d.read(&files[k], k == len(files)-1); err != nil {
			return err
		}
	}
	return nil
}

// checkAge: a log that was closed cleanly has no file behind the one it ended in.
func (d *DiskStorage) checkAge(number uint64) error {
	m := d.meta.Meta()
	if !m.Clean || number <= m.Durable.File {
		return nil
	}
	return corrupt.At(filepath.Join(d.dir, entryfile.Name(number)), 0, "the log was closed cleanly without this file: it is of another time%s", d.orDgraph())
}

func (d *DiskStorage) openFile(number uint64) (loaded, error) {
	m := d.meta.Meta()
	f, err := entryfile.Open(d.fsys, d.dir, number, m.LogID, d.meta.Keys(), d.opts.ReadOnly)
	if err != nil {
		return loaded{}, err
	}
	d.files = append(d.files, segment{file: f, first: 1, last: 0})
	if m.Encrypted && number >= m.EncryptedFrom && !f.Encrypted() {
		return loaded{}, fmt.Errorf("%w (%w)", corrupt.At(f.Path(), 0, "the file is not encrypted, as it was when it was made"), ErrTampered)
	}
	return loaded{file: f}, nil
}

// checkChain compares the file that f follows with the one that is there, the
// last of before; and f with the one that wal.meta knows.
func (d *DiskStorage) checkChain(f *entryfile.File, k int, numbers []uint64, before []loaded) error {
	switch {
	case k == 0 && f.Prev() >= d.meta.Meta().FirstFile:
		return d.missing(f.Prev())
	case k > 0 && f.Prev() > numbers[k-1]:
		return d.missing(f.Prev())
	case k > 0 && f.Prev() < numbers[k-1]:
		return corrupt.At(f.Path(), 0, "the file follows number %d, but %d is there: one of them is of another time", f.Prev(), numbers[k-1])
	case k > 0 && f.PrevSealed() && !before[k-1].file.Sealed():
		return corrupt.At(before[k-1].file.Path(), 0, "the file had been sealed before %s was begun: it is of an earlier time", f.Path())
	case k > 0 && f.PrevSalt() != before[k-1].file.Salt():
		return corrupt.At(f.Path(), 0, "the file does not follow %s, but another of that number: one of them is of another copy of the log", before[k-1].file.Path())
	}
	if m := d.meta.Meta(); f.Number() == m.Durable.File && f.Salt() != m.Durable.Salt {
		return corrupt.At(f.Path(), 0, "not the file that was written, but another of its number: it is of another copy of the log")
	}
	return nil
}

func (d *DiskStorage) missing(number uint64) error {
	return corrupt.At(filepath.Join(d.dir, entryfile.Name(number)), 0, "the file is missing: restore it from a backup%s", d.orDgraph())
}

// orDgraph says what else may have happened to a log that was closed: Dgraph removes files
// that show no entry, and makes one if none is left, when it opens a directory.
func (d *DiskStorage) orDgraph() string {
	if m := d.meta.Meta(); !m.Clean || m.Encrypted {
		return ""
	}
	return "; if Dgraph has opened the directory since, use `mmapwal import --from dgraph`"
}

// read finds out what a file that is not sealed holds.
func (d *DiskStorage) read(l *loaded, last bool) error {
	m := d.meta.Meta()
	if m.Clean {
		if !last {
			return corrupt.At(l.file.Path(), 0, "the log was closed cleanly, but this file is neither sealed nor the last")
		}
		if l.file.Encrypted() {
			return d.readClean(l, m.Durable.Offset)
		}
		return l.file.Continue(m.Durable.Offset, d.opts.Sync.mode == hardSync)
	}
	return d.scan(l)
}

// readClean reads the records of an encrypted file that was closed cleanly: it is
// not continued, since a copy of the log may be, with the same key.
func (d *DiskStorage) readClean(l *loaded, end int64) error {
	if err := d.scan(l); err != nil {
		return err
	}
	if l.scan.End != end {
		return corrupt.At(l.file.Path(), min(l.scan.End, end), "the data ends at %d, but at the last close it ended at %d", l.scan.End, end)
	}
	return nil
}

// scan reads the records of a file.
func (d *DiskStorage) scan(l *loaded) error {
	scan, err := l.file.Scan()
	if err != nil {
		return err
	}
	d.recovery.FilesScanned++
	d.recovery.Entries += scan.Index.Len()
	l.scan = &scan
	l.file.Resume(scan)
	return nil
}

// judge tells torn writes from damage, and looks for gaps between the entries that
// count. The first n files are the log: what those behind them hold was never promised.
func (d *DiskStorage) judge(files []loaded) (n int, err error) {
	for n < len(files) {
		l := files[n]
		n++
		if l.scan != nil {
			if err := d.judgeEnd(l, files[n:]); err != nil {
				return 0, err
			}
		}
		if l.open() {
			break
		}
	}
	return n, d.findGap(files[:n])
}

// findGap says where entries are missing between those of files that count.
func (d *DiskStorage) findGap(files []loaded) error {
	c := chain.New(d.meta.Meta().Compacted.Index)
	for _, l := range files {
		c.Add(l.held())
	}
	if c.Whole() {
		return nil
	}
	gap := c.Gaps()[0]
	missing := gap.Missing
	return &CorruptError{File: files[gap.File].file.Path(), Offset: entryfile.DataStart, First: missing.First, Last: missing.Last,
		Reason: fmt.Sprintf("the file begins at entry %d, but those before it end at %d", missing.Last+1, missing.First-1)}
}

// judgeEnd says whether what lies at the end of l's records was once promised.
func (d *DiskStorage) judgeEnd(l loaded, later []loaded) error {
	damaged := func(reason string, args ...any) error {
		first, last := l.file.Damaged(l.scan)
		return &CorruptError{File: l.file.Path(), Offset: l.scan.End, First: first, Last: last, Reason: fmt.Sprintf(reason, args...)}
	}
	durable := d.meta.Meta().Durable
	if durable.File == l.file.Number() && l.scan.End < durable.Offset {
		return damaged("the record is damaged; all up to offset %d had been synced", durable.Offset)
	}
	if l.scan.Witness != 0 {
		return damaged("the record is damaged; the one at offset %d says that it had been synced", l.scan.Witness)
	}
	if by := d.vouches(l, later); l.open() && by != "" {
		return damaged("the end of the file is damaged; %s says that all of it had been synced", by)
	}
	return nil
}

// vouches returns the path of the file that says that all of l had been synced; "" if
// none does.
func (d *DiskStorage) vouches(l loaded, later []loaded) string {
	if d.meta.Meta().Durable.File > l.file.Number() {
		return filepath.Join(d.dir, metafile.Name)
	}
	for _, other := range later {
		if other.scan == nil && other.file.Sealed() || other.scan != nil && other.scan.Mark >= entryfile.DataStart {
			return other.file.Path()
		}
	}
	return ""
}

// recover makes what was found durable and takes it as the log, which the first n
// files are: those that were not sealed end where their records end. Those
// behind are gone before, or they would seem to follow; those at the end that have no
// records are noted in d.empty.
func (d *DiskStorage) recover(files []loaded, n int) error {
	for _, l := range slices.Backward(files[n:]) {
		d.noteDropped(l)
		if err := d.removeDurably(entryfile.Name(l.file.Number())); err != nil {
			return err
		}
	}
	kept := files[:n]
	for len(kept) > 0 && kept[len(kept)-1].empty() {
		l := kept[len(kept)-1]
		d.noteTorn(l)
		d.empty = append(d.empty, entryfile.Name(l.file.Number()))
		kept = kept[:len(kept)-1]
	}
	for k, l := range kept {
		switch {
		case l.scan != nil:
			d.noteTorn(l)
			if err := d.endFile(kept[:k+1]); err != nil {
				return err
			}
		case k == len(kept)-1 || kept[k+1].scan != nil:
			// The seals of those before it were durable before it was sealed.
			if d.settled() {
				// and so is this one
			} else if err := l.file.RestoreHeader(); err != nil {
				return err
			}
			if !l.file.Sealed() && d.opts.wrapper != nil { // new entries are encrypted
				if err := l.file.Seal(); err != nil {
					return err
				}
			}
		}
	}
	d.adoptLoaded(kept)
	return nil
}

// empty: the file was not sealed, and no record of it is whole.
func (l loaded) empty() bool { return l.scan != nil && l.scan.End == entryfile.DataStart }

// open: the file was not sealed, and no record says that it ends.
func (l loaded) open() bool { return !l.file.Sealed() && (l.scan == nil || !l.scan.Ended) }

// noteDropped notes what a file behind the end of the log holds.
func (d *DiskStorage) noteDropped(l loaded) {
	if l.scan == nil || l.scan.Index.Len() == 0 {
		d.noteTorn(l)
		return
	}
	d.recovery.TornBytes += l.scan.End - entryfile.DataStart
	d.log.Info("raftwal: entries dropped; what comes before them was lost, and neither was promised", "file", l.file.Path(),
		"first", l.scan.Index.First(), "last", l.scan.Index.Last())
}

func (d *DiskStorage) noteTorn(l loaded) {
	if l.scan == nil || l.scan.Rest == 0 || l.scan.Ended {
		return
	}
	d.recovery.TornBytes += l.scan.Rest
	d.log.Info("raftwal: torn tail dropped; it was never promised", "file", l.file.Path(),
		"offset", l.scan.End, "bytes", l.scan.Rest, "last", l.last())
}

// endFile ends the last of files, one that was read, where its records end, durably.
func (d *DiskStorage) endFile(files []loaded) error {
	l := files[len(files)-1]
	from := max(l.scan.Mark, entryfile.DataStart)
	if durable := d.meta.Meta().Durable; durable.File == l.file.Number() {
		from = max(from, durable.Offset)
	}
	if err := l.file.RestoreHeader(); err != nil {
		return err
	}
	if err := l.file.Restore(*l.scan, from); err != nil {
		return err
	}
	if err := d.endDurably(files); err != nil || d.opts.Recovery == KeepValidPrefix {
		return err // what was put up with stays where it is
	}
	if err := l.file.Trim(); err != nil {
		d.log.Debug("raftwal: blocks behind the end of a file not given back", "file", l.file.Path(), "err", err)
	}
	return nil
}

// endDurably is endFile once the records are stored again.
func (d *DiskStorage) endDurably(files []loaded) error {
	l := files[len(files)-1]
	if d.opts.Recovery == KeepValidPrefix || d.opts.wrapper != nil {
		return sealInOrder(files)
	}
	err := l.file.TerminateHere(l.scan)
	switch {
	case err == nil:
		return l.file.Sync()
	case errors.Is(noSpace(err), ErrNoSpace):
		return sealInOrder(files) // which may need less
	}
	return err
}

// sealInOrder seals the last of files, and those in front of it that are not sealed before.
func sealInOrder(files []loaded) error {
	for k, l := range files {
		if k < len(files)-1 && l.file.Sealed() {
			continue
		}
		if err := l.file.Seal(); err != nil {
			return noSpace(err)
		}
	}
	return nil
}

// adoptLoaded takes files as the log, and closes those that are not in it any
// more. The last one is the tail, unless it is sealed, or a record says that it ends.
func (d *DiskStorage) adoptLoaded(files []loaded) {
	opened := d.files
	d.files, d.tail = nil, nil
	for _, l := range files {
		first := l.file.First()
		if first != 0 {
			d.supersede(first)
		}
		s := newSegment(l.file)
		if !l.file.Sealed() {
			x := l.file.Index()
			s.index = &x
		}
		d.files = append(d.files, s)
	}
	if n := len(files); n > 0 && files[n-1].open() {
		d.tail = d.files[n-1].file
		d.files[n-1] = segment{file: d.tail, first: 1, last: 0}
	}
	for _, s := range opened {
		if !slices.ContainsFunc(files, func(l loaded) bool { return l.file == s.file }) {
			d.releaseDead(s.file)
		}
	}
}

// supersede takes the entries from first on out of all files, since a new one
// holds them anew. It reports whether there were any.
func (d *DiskStorage) supersede(first uint64) (any bool) {
	for k := len(d.files) - 1; k >= 0; k-- {
		s := &d.files[k]
		counts := chain.Range{First: s.first, Last: s.last}
		left := counts.Cut(first)
		switch {
		case counts.Empty(): // nothing to take
		case left == counts:
			return any // nor from the files before it
		case left.Empty():
			s.first, s.last, any = 1, 0, true
		default:
			s.last, any = left.Last, true
		}
	}
	return any
}
