package inspect

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// Meta is what wal.meta says.
type Meta struct {
	RaftID     uint64 `json:"raft_id"`
	GroupID    uint64 `json:"group_id"`
	Checkpoint uint64 `json:"checkpoint"`
	LogID      string `json:"log_id"`

	Clean         bool   `json:"clean"` // closed by its last owner
	Encrypted     bool   `json:"encrypted"`
	EncryptedFrom uint64 `json:"encrypted_from,omitempty"` // number of the first encrypted file of a log that was not
	SyncPolicy    string `json:"sync_policy"`

	HardState *HardState `json:"hard_state,omitempty"` // nil: none was stored
	Snapshot  Snapshot   `json:"snapshot"`
	Compacted Position   `json:"compacted"` // the entry in front of the first
	FirstFile uint64     `json:"first_file"`
	Durable   Place      `json:"durable"`                 // all in front of it is known to be on the disk
	Cleared   uint64     `json:"cleared_below,omitempty"` // normal entries below it may have no data
	Pages     []Page     `json:"pages"`
}

// HardState is raft's.
type HardState struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

// Position names an entry.
type Position struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// Place is an offset in an entry file; file 0: none.
type Place struct {
	File   uint64 `json:"file"`
	Offset int64  `json:"offset"`
}

// Snapshot is the newest one. Index 0: there is none, or one of the members that
// a group starts with.
type Snapshot struct {
	Position
	Bytes     int64    `json:"bytes"`          // of its data; in an encrypted log without a key, of all that wal.meta has of it
	File      string   `json:"file,omitempty"` // base name; empty: in wal.meta
	Plain     bool     `json:"plain,omitempty"`
	Voters    []uint64 `json:"voters,omitempty"`
	Learners  []uint64 `json:"learners,omitempty"`
	Encrypted bool     `json:"encrypted,omitempty"` // nothing but index, term and size is known without the key
}

// Page is one of the four pages of wal.meta.
type Page struct {
	Sequence uint64 `json:"sequence,omitempty"`
	State    string `json:"state"` // newest, valid, blank, wiped, damaged
}

const pages = metafile.Size / page.Size

// readMetaFile reads wal.meta, as much of it as there is.
func (l *Log) readMetaFile() (raw []byte, size int64, err error) {
	f, err := l.fsys.Open(filepath.Join(l.Dir, metafile.Name), true)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size, err = f.Size(); err != nil {
		return nil, 0, err
	}
	raw = make([]byte, min(size, metafile.Size))
	_, err = io.ReadFull(io.NewSectionReader(f, 0, size), raw)
	return raw, size, err
}

// readMetaAgain reads wal.meta anew, without judging it.
func (l *Log) readMetaAgain() bool {
	raw, _, err := l.readMetaFile()
	if err != nil {
		return l.Meta != nil
	}
	l.metaRaw = raw
	return true
}

// readMeta finds the page that counts and judges all four. The error says that
// the directory cannot be looked at: there is no wal.meta, or another program's,
// or a newer one.
func (l *Log) readMeta() error {
	raw, size, err := l.readMetaFile()
	if err != nil {
		return err
	}
	l.metaRaw = raw
	if size < metafile.Size {
		return l.refuseMeta()
	}
	views, newest := l.readPages(raw)
	for _, v := range views {
		if errors.Is(v.Err, metafile.ErrVersion) {
			return fmt.Errorf("%w: %w", mmapwal.ErrVersion, v.Err)
		}
	}
	if newest >= 0 {
		l.meta = views[newest].Meta
		l.describeMeta(views, newest)
	}
	if err := l.judgePages(views, newest); err != nil {
		return err
	}
	l.checkBehind(raw, views, size)
	return nil
}

// readPages reads the four pages; a live owner may be storing one.
func (l *Log) readPages(raw []byte) (views [pages]metafile.PageView, newest int) {
	newest = -1
	for k := range views {
		views[k] = metafile.InspectPage(raw[k*page.Size : (k+1)*page.Size])
		if views[k].Err == nil && (newest < 0 || views[k].Sequence > views[newest].Sequence) {
			newest = k
		}
	}
	return views, newest
}

// refuseMeta says what is wrong with a wal.meta of which no page that holds the
// promises can be read, as the engine does.
func (l *Log) refuseMeta() error {
	f, err := metafile.Open(l.fsys, l.Dir, true)
	switch {
	case err == nil:
		return f.Close() // it is whole by now
	case errors.Is(err, metafile.ErrDgraph), errors.Is(err, metafile.ErrForeign):
		return fmt.Errorf("%w: %w", mmapwal.ErrForeign, err)
	}
	heal := healNode
	if l.canExtend() {
		heal = healCut
	}
	l.addError(KindMeta, metafile.Name, heal, err)
	return nil
}

// canExtend reports whether wal.meta is only cut short: page 0 is whole, and was stored when the log
// was closed, so that nothing newer stood behind it.
func (l *Log) canExtend() bool {
	if len(l.metaRaw) < page.Size || len(l.metaRaw) >= metafile.Size {
		return false
	}
	v := metafile.InspectPage(l.metaRaw[:page.Size])
	return v.Err == nil && v.Meta.Clean
}

func (l *Log) judgePages(views [pages]metafile.PageView, newest int) error {
	if views[0].Err != nil && views[1].Err != nil {
		if err := l.refuseMeta(); err != nil || newest < 0 {
			return err
		}
	}
	for k, v := range views {
		state := "valid"
		switch {
		case v.Err == nil && k == newest:
			state = "newest"
		case v.Err == nil:
		case v.Blank:
			state = "blank"
		case v.Wiped:
			state = "wiped"
		default:
			state = "damaged"
		}
		if l.Meta != nil {
			l.Meta.Pages = append(l.Meta.Pages, Page{Sequence: v.Sequence, State: state})
		}
		if v.Err != nil && (state == "damaged" || k < 2) {
			l.addPage(k, v, views)
		}
	}
	if views[0].Err == nil && views[1].Err == nil && views[1].Meta.Clean && views[0].Sequence < views[1].Sequence {
		l.add(Problem{Severity: Damage, Kind: KindMeta, File: metafile.Name, Length: page.Size,
			What: "page 0 is older than page 1, which was stored after it when the log was closed: it is of another time", Heal: healPage})
	}
	return nil
}

// addPage notes a page that cannot be read.
func (l *Log) addPage(k int, v metafile.PageView, views [pages]metafile.PageView) {
	p := Problem{Severity: Degraded, Kind: KindMeta, File: metafile.Name, Offset: int64(k) * page.Size, Length: page.Size,
		What: fmt.Sprintf("page %d cannot be read (%v): a store that a crash interrupted, or damage", k, v.Err), Heal: healPage}
	switch other := views[1-k%2]; {
	case k < 2 && other.Err != nil:
		p.Severity, p.Heal = Damage, healNode
		p.What = fmt.Sprintf("page %d cannot be read (%v), nor can page %d: term, vote and snapshot are lost", k, v.Err, 1-k)
	case k == 0 && metafile.WrittenByDgraph(l.metaRaw[:page.Size], l.metaRaw[page.Size:2*page.Size]):
		p.Severity = Damage
		p.What = fmt.Sprintf("page 0 (%v) is not what was closed, as page 1 tells, and reads as if Dgraph had written to it since", v.Err)
		p.Heal = "import the directory with `mmapwal import --from dgraph`; if Dgraph has certainly never opened it, `mmapwal repair --not-dgraph` heals the page"
	case k < 2:
		p.What = fmt.Sprintf("page %d cannot be read (%v): a store that a power cut interrupted, or damage; page %d holds the same", k, v.Err, 1-k)
	}
	l.add(p)
}

// checkBehind looks for bytes behind those in use.
func (l *Log) checkBehind(raw []byte, views [pages]metafile.PageView, size int64) {
	for k, v := range views {
		if v.Err != nil {
			continue
		}
		end := (k + 1) * page.Size
		if from, n := nonZero(raw[k*page.Size+v.Used : end]); n > 0 {
			l.addStray(metafile.Name, int64(k*page.Size+v.Used)+from, n)
		}
	}
	if size > metafile.Size {
		l.add(Problem{Severity: Note, Kind: KindStray, File: metafile.Name, Offset: metafile.Size, Length: size - metafile.Size,
			What: fmt.Sprintf("the file is %d bytes longer than its four pages", size-metafile.Size), Heal: healNothing})
	}
}

// addStray notes bytes where zeros belong.
func (l *Log) addStray(file string, at, n int64) {
	l.add(Problem{Severity: Note, Kind: KindStray, File: file, Offset: at, Length: n,
		What: fmt.Sprintf("%d bytes are not zero where nothing is stored", n), Heal: healNothing})
}

func (l *Log) describeMeta(views [pages]metafile.PageView, newest int) {
	m := &l.meta
	l.Meta = &Meta{
		RaftID: m.RaftID, GroupID: m.GroupID, Checkpoint: m.Checkpoint, LogID: fmt.Sprintf("%016x", m.LogID),
		Clean: m.Clean, Encrypted: m.Encrypted, EncryptedFrom: m.EncryptedFrom,
		Compacted: Position(m.Compacted), FirstFile: m.FirstFile,
		Durable: Place{m.Durable.File, m.Durable.Offset}, Cleared: m.ClearedBelow,
	}
	l.describeHardState()
	l.Meta.SyncPolicy = map[uint32]string{0: "HardSync", 1: "BatchSync", 2: "NoSync"}[m.SyncPolicy]
	s := &l.Meta.Snapshot
	s.Position, s.Plain, s.Encrypted = Position(m.Snapshot), m.SnapshotPlain, m.Encrypted && !m.SnapshotPlain
	if m.SnapshotInFile {
		s.File = metafile.SnapshotName(m.Snapshot)
	}
	s.Bytes = int64(views[newest].InlineBytes())
	if !m.Encrypted {
		l.describeSnapshot()
	}
}

func (l *Log) describeHardState() {
	l.Meta.HardState = nil
	if h := l.meta.HardState; h.Stored {
		l.Meta.HardState = &HardState{h.Term, h.Vote, h.Commit}
	}
}

// judgeHardState takes the hard state that counts, as Open does: see metafile.Pages.
func (l *Log) judgeHardState() {
	if l.Meta == nil || l.meta.Clean {
		return
	}
	views, _ := l.readPages(l.metaRaw)
	var p metafile.Pages
	for k := range views {
		if views[k].Err == nil {
			p[k] = &views[k].Meta
		}
	}
	var live []*File
	for _, c := range l.chain {
		if c.file.Role == RoleLive {
			live = append(live, c.file)
		}
	}
	hard, newest := p.Believed(Ends(live))
	if hard < 0 || p[hard].HardState == p[newest].HardState && p[hard].Checkpoint == p[newest].Checkpoint {
		return
	}
	was := p[newest].HardState
	l.meta.HardState, l.meta.Checkpoint = p[hard].HardState, p[hard].Checkpoint
	l.Meta.Checkpoint = l.meta.Checkpoint
	l.describeHardState()
	l.add(Problem{Severity: Note, Kind: KindState, File: metafile.Name, Offset: int64(newest) * page.Size, Length: page.Size,
		What: fmt.Sprintf("the hard state of page %d (term %d, vote %d, commit %d) was stored behind entries that are not there; that of page %d counts",
			newest, was.Term, was.Vote, was.Commit, hard),
		Heal: "nothing to do: neither was promised, since nothing was synced; the next Open for writing puts it right"})
}

// Ends says where the records of files end, as metafile.Pages needs to know it.
func Ends(files []*File) (found []metafile.End) {
	for _, f := range files {
		found = append(found, metafile.End{File: f.Header.Number, Offset: f.End, Salt: f.Header.Salt})
	}
	return found
}

// describeSnapshot says what the inline part of the snapshot does.
func (l *Log) describeSnapshot() {
	snap, err := l.meta.SnapshotProto()
	if err != nil {
		return // the page would not have been accepted
	}
	s := &l.Meta.Snapshot
	s.Bytes = int64(len(snap.GetData()))
	s.Voters, s.Learners = snap.GetMetadata().GetConfState().GetVoters(), snap.GetMetadata().GetConfState().GetLearners()
}

// unlock takes the key, checks the MACs of all pages, and opens the snapshot.
func (l *Log) unlock() error {
	switch w := l.opts.Wrapper; {
	case l.Meta == nil:
		return nil
	case l.meta.Encrypted && w == nil:
		l.add(Problem{Severity: Note, Kind: KindUnchecked,
			What: "the log is encrypted, and no key was given: checksums are checked, tags are not",
			Heal: "give the key with --key-file"})
		return nil
	case !l.meta.Encrypted && w != nil:
		return fmt.Errorf("%s: %w, but a key was given", l.Dir, mmapwal.ErrNotEncrypted)
	case !l.meta.Encrypted:
		return l.checkDowngrade()
	}
	var err error
	if l.keys, err = encryption.UnwrapDirectoryKey(l.opts.Wrapper, l.meta.WrappedKey, l.meta.LogID); err != nil {
		return fmt.Errorf("%s: %w", l.Dir, err)
	}
	return l.openPages()
}

// checkDowngrade: an encrypted log does not become a plain one.
func (l *Log) checkDowngrade() error {
	views, newest := l.readPages(l.metaRaw)
	for _, v := range views {
		if v.Err == nil && v.Meta.Encrypted {
			l.addTampered(metafile.Name, int64(newest)*page.Size, "the page says that the log is not encrypted, another that it is")
		}
	}
	return nil
}

func (l *Log) openPages() error {
	views, newest := l.readPages(l.metaRaw)
	for k := range views {
		v := &views[k]
		if v.Err != nil || !v.Meta.Encrypted {
			continue // a page of the time before encryption, or noted already
		}
		if err := v.Unlock(l.keys); err != nil {
			l.addTampered(metafile.Name, int64(k)*page.Size, fmt.Sprintf("page %d: %v", k, err))
		} else if k == newest {
			l.meta = v.Meta
			l.describeSnapshot()
		}
	}
	return nil
}

func (l *Log) addTampered(file string, at int64, what string) {
	l.add(Problem{Severity: Damage, Kind: KindTampered, File: file, Offset: at,
		What: what + ": it was changed on purpose, moved, or is of another log", Heal: healNode})
}

// lookAtSnapshot checks the snapshot's file.
func (l *Log) lookAtSnapshot() error {
	if l.Meta == nil || !l.meta.SnapshotInFile {
		return nil
	}
	n, err := metafile.InspectSnapshot(l.fsys, l.Dir, &l.meta, l.keys, l.opts.Check)
	heal := healSnapshot
	if err != nil && l.opts.Check {
		if _, err := metafile.InspectSnapshot(l.fsys, l.Dir, &l.meta, l.keys, false); err == nil {
			heal = healSnapshotData // Open looks no further
		}
	}
	l.Meta.Snapshot.Bytes = n
	switch {
	case err == nil:
	case cannotLook(err):
		return err
	case errors.Is(err, encryption.ErrTampered):
		l.addError(KindTampered, l.Meta.Snapshot.File, heal, err)
	default:
		l.addError(KindSnapshot, l.Meta.Snapshot.File, heal, err)
	}
	return nil
}

// guard runs access on mapped memory.
func guard(name string, mem []byte, access func() error) error { return vfs.Guard(name, mem, access) }
