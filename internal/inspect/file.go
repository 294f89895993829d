package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
)

// File is an entry file.
type File struct {
	Name      string `json:"name"`
	Number    uint64 `json:"number"`
	Role      Role   `json:"role"`
	Size      int64  `json:"size"`
	Reserved  int64  `json:"reserved"` // bytes of the blocks it has; -1: not known
	Sealed    bool   `json:"sealed"`
	Ended     bool   `json:"ended"`  // its last record says that no more follow
	Reused    bool   `json:"reused"` // made of a spare file: behind the records are those of an earlier life
	Encrypted bool   `json:"encrypted"`
	First     uint64 `json:"first"` // the entries in it that count; 0: none
	Last      uint64 `json:"last"`
	Records   int    `json:"records"` // whole ones, those that do not count among them
	End       int64  `json:"end"`     // of the records; 0: not known
	Bytes     Bytes  `json:"bytes"`

	// Index is damaged if slots or header pages are.
	IndexDamaged bool    `json:"index_damaged,omitempty"`
	Pieces       []Piece `json:"-"` // of the data region, without holes between them

	Header entryfile.Header `json:"-"` // the one that counts; zero if none can be read
	Held   Held             `json:"-"`

	behind later // what the files behind it say
}

// Held is what is known of the entries that a file holds, those among them that do not count.
type Held struct {
	Known bool // the file can be read, and is the one that should be here
	// First and Last are the entries that it is known to hold, or to have held; 0: none.
	First, Last uint64
	HidesFirst  bool // damage hides which entry its first one was
	HidesEnd    bool // damage hides what stood behind the last one
}

// Kind is what a piece of a data region is.
type Kind string

// The kinds, the most remarkable ones last.
const (
	Free       Kind = "free"       // zeros behind the records
	Stale      Kind = "stale"      // of an earlier life of the file
	Punched    Kind = "punched"    // cleared, and given back to the disk
	Compacted  Kind = "compacted"  // records that a snapshot covers
	Superseded Kind = "superseded" // records that later ones replace
	Cleared    Kind = "cleared"    // records of entries whose data was cleared
	Live       Kind = "live"
	Torn       Kind = "torn" // never promised
	Damaged    Kind = "damaged"
)

// Kinds are all kinds, the most remarkable one last.
var Kinds = []Kind{Free, Stale, Punched, Compacted, Superseded, Cleared, Live, Torn, Damaged}

// Piece is a range of bytes of one kind.
type Piece struct {
	From, To int64
	Kind     Kind
}

// Bytes says how many bytes of the data region are of which kind.
type Bytes map[Kind]int64

// Wasted returns the bytes that are taken and not needed.
func (b Bytes) Wasted() int64 { return b[Compacted] + b[Superseded] + b[Cleared] }

// later is what the files behind one say about it.
type later struct {
	cut     uint64 // they hold all entries from here on; 0: none
	vouches string // the file that says that what is in front of it was synced
}

// with returns what s and the files behind it say about those in front of it.
func (b later) with(s *scan) later {
	if s.foreign || s.file.Role != RoleLive {
		return b
	}
	if s.endsLog() {
		b = later{}
	}
	if first := s.first; first != 0 && len(s.entries) > 0 && (b.cut == 0 || first < b.cut) {
		b.cut = first
	}
	if s.header.Sealed || s.mark >= entryfile.DataStart {
		b.vouches = s.file.Name
	}
	return b
}

// scan is the reading of one file.
type scan struct {
	log       *Log
	file      *File
	raw       vfs.File
	mem       []byte
	size      int64
	header    entryfile.Header
	head      int64 // offset of the header page that counts
	ok        bool  // there is one
	oneHeader bool  // the other page cannot be read
	foreign   bool  // the file is not the one that should be here
	secrets   *entryfile.Secrets
	later     later

	records []entryfile.Record // whole ones, by offset
	gaps    []gap              // what lies between them
	sums    *page.Sums         // of what lies behind the first gap; nil: not needed yet
	end     int64              // of the records
	ended   bool               // the last one says that no more follow
	mark    int64              // what they vouch for
	spared  []entryfile.Record // in the region that was punched

	first   uint64 // index of entries[0]
	entries []entry
}

// gap is a range of bytes without a whole record.
type gap struct{ from, to int64 }

// entry is a live entry of a file: the number of its record, or why there is none.
type entry struct {
	record int // in scan.records; < 0: see below
}

const (
	lost    = -1 // the record is damaged
	cleared = -2 // the record was given back to the disk
)

// scanFile reads a file and says what is wrong with it.
func (l *Log) scanFile(f *File, behind later) (*scan, error) {
	s := &scan{log: l, file: f, later: behind}
	f.Bytes, f.behind = Bytes{}, behind
	defer s.describeHeld()
	closing, err := s.open()
	if errors.Is(err, fs.ErrNotExist) {
		s.foreign = true
		s.add(Problem{Severity: Damage, Kind: KindMissing, What: "the file went away", Heal: healFile})
		return s, nil
	}
	if err != nil {
		if cannotLook(err) {
			return nil, err
		}
		s.foreign = true
		l.addError(KindUnread, f.Name, healFile, err)
		return s, nil
	}
	defer closing()
	err = guard(f.Name, s.mem, s.look)
	if s.sums != nil {
		l.summed += s.sums.Summed()
	}
	if ctxErr := l.ctx.Err(); ctxErr != nil {
		return nil, ctxErr
	}
	if err != nil {
		s.foreign = true
		p := Problem{Severity: Damage, Heal: healFile}
		p.unread(err)
		s.add(p)
	}
	return s, nil
}

// open maps the file. What closing undoes is reading only.
func (s *scan) open() (closing func(), err error) {
	if s.raw, err = s.log.fsys.Open(filepath.Join(s.log.Dir, s.file.Name), true); err != nil {
		return nil, err
	}
	closing = func() { _ = s.raw.Close() }
	if s.size, err = s.raw.Size(); err != nil || s.size == 0 {
		return closing, err
	}
	m, err := s.raw.Map(s.size)
	if err != nil {
		closing()
		return nil, err
	}
	s.mem, s.file.Size = m.Bytes(), s.size
	return func() {
		if s.secrets != nil {
			s.secrets.Wipe()
		}
		_ = m.Close()
		_ = s.raw.Close()
	}, nil
}

func (s *scan) add(p Problem) {
	p.File = s.file.Name
	s.log.add(p)
}

// addRecord reports a record that is whole, and wrong.
func (s *scan) addRecord(r entryfile.Record, kind, what string) {
	p := Problem{Severity: Damage, Kind: kind, Offset: r.Offset, Length: r.End() - r.Offset, First: r.Index, Last: r.Index, What: what, Heal: healEntries}
	if r.Ends {
		p.First, p.Last, p.Heal = 0, 0, healFile
	}
	s.add(p)
}

// look reads the whole file.
func (s *scan) look() error {
	if s.size < entryfile.DataStart {
		s.foreign = true
		s.add(Problem{Severity: Damage, Kind: KindCut, Offset: s.size, Heal: healFile,
			What: fmt.Sprintf("cut short: an entry file has at least %d bytes, %d are left", entryfile.DataStart, s.size)})
		return nil
	}
	s.readHeaders()
	if !s.ok {
		s.paint(entryfile.DataStart, s.size, Damaged)
		s.sum()
		return nil
	}
	s.checkHeader()
	if s.file.Role == RoleDead {
		s.lookDead()
		return nil
	}
	if err := s.readRecords(); err != nil {
		return err
	}
	if s.endsLog() {
		s.later.cut = 0 // what the files behind hold does not count
	}
	s.list()
	s.useSlots()
	s.judgeGaps()
	s.describe()
	if s.header.Sealed {
		s.checkSeal()
		s.checkCleared()
	}
	s.checkSlots()
	if s.log.opts.Check {
		if err := s.checkZeros(); err != nil {
			return err
		}
		s.checkTags()
	}
	s.findHidden()
	s.classify()
	s.sum()
	return nil
}

// lookDead describes a file that nobody reads any more.
func (s *scan) lookDead() {
	s.end = s.limit()
	if s.header.Sealed {
		s.end = min(s.header.Seal.End, s.limit())
	}
	s.file.Sealed, s.file.Encrypted, s.file.End = s.header.Sealed, len(s.header.WrappedKey) > 0, s.end
	s.paint(entryfile.DataStart, s.end, Compacted)
	s.sum()
}

// limit is where the data region ends.
func (s *scan) limit() int64 { return min(s.size, s.header.Size) }

// readHeaders finds the header page that counts.
func (s *scan) readHeaders() {
	var sequences [2]uint64
	var errs [2]error
	var headers [2]entryfile.Header
	for k, at := range entryfile.HeaderPages {
		headers[k], sequences[k], errs[k] = entryfile.InspectHeader(s.mem[at : at+page.Size])
	}
	which := 0
	switch {
	case errs[0] != nil && errs[1] != nil:
		s.foreign, s.file.IndexDamaged = true, true
		s.add(Problem{Severity: Damage, Kind: KindHeader, Offset: entryfile.HeaderPages[0], Length: 2 * page.Size, Heal: healFile,
			What: fmt.Sprintf("both header pages are damaged (%s): without the salt no record can be told", corrupt.Both(errs[0], errs[1]))})
		return
	case errs[0] != nil || errs[1] == nil && sequences[1] > sequences[0]:
		which = 1
	}
	s.header, s.head, s.ok = headers[which], entryfile.HeaderPages[which], true
	other := entryfile.HeaderPages[1-which]
	_, used := nonZero(s.mem[other : other+page.Size])
	if errs[1-which] != nil && (used > 0 || sequences[which] > 1) {
		s.file.IndexDamaged, s.oneHeader = true, true
		s.add(Problem{Severity: Degraded, Kind: KindHeader, Offset: other, Length: page.Size, Heal: healHeader,
			What: "a header page cannot be read: a store that a power cut interrupted, or damage; the other one counts"})
	}
	s.unlock(headers, errs)
}

// unlock takes the file's key, and checks the MACs of the pages that can be read.
func (s *scan) unlock(headers [2]entryfile.Header, errs [2]error) {
	if s.log.keys == nil {
		return
	}
	for k, at := range entryfile.HeaderPages {
		if errs[k] != nil || len(headers[k].WrappedKey) == 0 {
			continue
		}
		secrets, err := entryfile.InspectSecrets(&headers[k], s.mem[at:at+page.Size], s.log.keys)
		switch {
		case err != nil:
			s.log.addTampered(s.file.Name, at, err.Error())
			s.foreign = s.foreign || at == s.head
		case at == s.head:
			s.secrets = secrets
		default:
			secrets.Wipe()
		}
	}
}

// checkHeader asks whether the file is the one that should be here.
func (s *scan) checkHeader() {
	h, m := &s.header, &s.log.meta
	s.file.Sealed, s.file.Encrypted, s.file.Reused = h.Sealed, len(h.WrappedKey) > 0, h.Reused
	heal := healFile
	alien := func(what string, args ...any) {
		s.foreign = true
		s.add(Problem{Severity: Damage, Kind: KindForeign, Offset: s.head, What: fmt.Sprintf(what, args...), Heal: heal})
	}
	known := s.log.Meta != nil
	switch {
	case known && h.LogID != m.LogID:
		alien("the file belongs to another log (%016x, not %016x)", h.LogID, m.LogID)
	case h.Number != s.file.Number:
		alien("the file is number %d under a wrong name", h.Number)
	case known && h.Number == m.Durable.File && h.Salt != m.Durable.Salt:
		alien("not the file that was written, but another of its number: it is of another copy of the log")
	case known && m.Clean && h.Number > m.Durable.File:
		heal = healTime
		alien("the log was closed cleanly without this file: it is of another time")
	}
	switch {
	case known && m.Encrypted && h.Number >= m.EncryptedFrom && !s.file.Encrypted:
		s.log.addTampered(s.file.Name, s.head, "the file is not encrypted, as it was when it was made")
	case known && !m.Encrypted && s.file.Encrypted:
		alien("the file is encrypted, though the log is not")
	}
	switch {
	case h.Size < entryfile.DataStart || s.size < h.Size:
		s.add(Problem{Severity: Damage, Kind: KindCut, Offset: s.size, First: h.Seal.First, Last: h.Seal.Last, Heal: healFile,
			What: fmt.Sprintf("cut short: %d bytes of %d are left", s.size, h.Size)})
	case s.size > h.Size:
		s.add(Problem{Severity: Note, Kind: KindStray, Offset: h.Size, Length: s.size - h.Size, Heal: healNothing,
			What: fmt.Sprintf("the file is %d bytes longer than its header says", s.size-h.Size)})
	}
}

// checkTags authenticates every record.
func (s *scan) checkTags() {
	if s.secrets == nil {
		return
	}
	for _, r := range append(s.spared, s.records...) {
		if _, err := s.secrets.Open(s.mem, r); errors.Is(err, encryption.ErrTampered) {
			s.addRecord(r, KindTampered, "the record's checksum is right, but not its tag: it was forged, or moved")
		}
	}
}
