// Package etcd reads the write-ahead log and the snapshot of an etcd member.
//
// etcd's checksums cover the data of a record, not its type: a changed type is
// found only by what contradicts it.
package etcd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// ErrNotEtcd: the directory is not one of etcd's. Damage is a
// *mmapwal.CorruptError, which says where.
var ErrNotEtcd = errors.New("not a data directory of etcd, which has member in it, nor that of a member, which has wal and snap in it")

// Log is the log of a member. It keeps no file open, and never writes.
type Log struct {
	transfer.Contents

	LeftOut     int    // entries that are still there, though the snapshot covers them
	Replaced    int    // entries that later ones replaced
	Files       int    // of the WAL
	Torn        Torn   // what a crash left at the end
	MissingSnap string // file with the data of the newest snapshot that is not there; empty: none
	Older       bool   // the snapshot is an older one than that

	paths []string // of the files, in order
	live  []place  // of the entries from First to Last
	state place    // of the last hard state
}

// Torn is an interrupted write, which was never promised.
type Torn struct {
	File   string // empty: there is none
	Offset int64
	Bytes  int64
}

// place is where an entry is.
type place struct {
	file   int // of Log.paths
	offset int
	before uint32 // rolling sum in front of it
	index  uint64
	term   uint64
}

// Open reads the log of an etcd member that is not running, and checks it. dir is
// etcd's data directory, the member's in it, or its wal directory.
//
// Errors: ErrNotEtcd, *mmapwal.CorruptError, and what the operating system says.
func Open(dir string) (*Log, error) {
	l, snaps, err := find(dir)
	if err != nil {
		return nil, err
	}
	s := scan{Log: l}
	l.HardState = new(raftpb.HardState)
	for k := range l.paths {
		if err := s.file(k); err != nil {
			return nil, err
		}
	}
	if err := s.finish(snaps); err != nil {
		return nil, err
	}
	l.Entries = l.entries
	return l, nil
}

// find finds the files of the WAL, and the directory with the snapshots.
func find(dir string) (l *Log, snaps string, err error) {
	if info, err := os.Stat(filepath.Join(dir, "member", "wal")); err == nil && info.IsDir() {
		dir = filepath.Join(dir, "member")
	}
	wal := dir
	if info, err := os.Stat(filepath.Join(dir, "wal")); err == nil && info.IsDir() {
		wal = filepath.Join(dir, "wal")
	}
	names, err := os.ReadDir(wal)
	if err != nil {
		return nil, "", err
	}
	l = new(Log)
	var last uint64
	for _, entry := range names { // sorted
		name := entry.Name()
		if entry.IsDir() || !strings.HasSuffix(name, ".wal") {
			continue
		}
		var seq, index uint64
		_, err := fmt.Sscanf(name, "%016x-%016x.wal", &seq, &index)
		if err != nil || name != fmt.Sprintf("%016x-%016x.wal", seq, index) {
			return nil, "", fmt.Errorf("%w: %s is not a name that etcd gives a file", ErrNotEtcd, filepath.Join(wal, name))
		}
		path := filepath.Join(wal, name)
		if len(l.paths) > 0 && seq != last+1 {
			return nil, "", corrupt.At(path, 0, "the file in front of it, of sequence number %d, is missing", seq-1)
		}
		l.paths, last = append(l.paths, path), seq
	}
	if len(l.paths) == 0 {
		return nil, "", fmt.Errorf("%s: %w", dir, ErrNotEtcd)
	}
	l.Files = len(l.paths)
	return l, filepath.Join(wal, "..", "snap"), nil
}

// errNoData: the file with the data of a snapshot is not there.
var errNoData = fmt.Errorf("there is no file with it: %w", fs.ErrNotExist)

// snapPath returns the path of the file with a snapshot's data.
func snapPath(s *snapshot, dir string) string {
	return filepath.Join(dir, fmt.Sprintf("%016x-%016x.snap", s.term, s.index))
}

// bare returns what a record of the WAL says of a snapshot.
func bare(s *snapshot) *raftpb.Snapshot {
	return raftpb.EnsureSnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: &s.index, Term: &s.term, ConfState: s.conf,
	}})
}

// load loads the snapshot that a record of the WAL names: its data is in a file.
func (l *Log) load(s *snapshot, dir string) error {
	l.Snapshot = bare(s)
	if s.index == 0 {
		return nil
	}
	path := snapPath(s, dir)
	file, err := transfer.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errNoData
	}
	if err != nil {
		return fmt.Errorf("the data of the snapshot at %d: %w", s.index, err)
	}
	var r record // snappb.Snapshot: 1 CRC, 2 data
	err = fields(file, func(number protowire.Number, v uint64, data []byte) error {
		switch {
		case number == 1 && data == nil && v <= math.MaxUint32:
			r.crc = uint32(v)
		case number == 2 && data != nil:
			r.data = data
		default:
			return errRecord
		}
		return nil
	})
	if err != nil || len(r.data) == 0 {
		return corrupt.At(path, 0, "the file cannot be read")
	}
	if sum := r.sum(0); sum != r.crc {
		return corrupt.At(path, 0, "the checksum is %08x, that of the data is %08x", r.crc, sum)
	}
	if err := unmarshal(r.data, l.Snapshot); err != nil {
		return corrupt.At(path, 0, "the snapshot cannot be read: %v", err)
	}
	l.Snapshot = raftpb.EnsureSnapshot(l.Snapshot)
	if at := l.Snapshot.GetMetadata(); at.GetIndex() != s.index || at.GetTerm() != s.term {
		return corrupt.At(path, 0, "it is the snapshot at %d of term %d", at.GetIndex(), at.GetTerm())
	}
	return nil
}

// settle says what the log holds behind the snapshot, once live has all entries.
func (l *Log) settle(s *snapshot) error {
	if s.elsewhere { // what it was taken from is another log, which those behind it continue
		at := sort.Search(len(l.live), func(k int) bool { return !l.live[k].less(s.place) })
		l.Replaced += at
		l.live = l.live[at:]
	}
	l.First = s.index + 1
	at := sort.Search(len(l.live), func(k int) bool { return l.live[k].index >= l.First })
	l.LeftOut += at
	l.live = l.live[at:]
	l.Last = s.index
	if len(l.live) == 0 {
		return l.checkCommit()
	}
	e := l.live[0]
	switch {
	case e.index != l.First:
		return l.damage(e, "the entries from %d on are missing: it is the first behind the snapshot at %d", l.First, s.index)
	case e.term < s.term:
		return l.damage(e, "it has term %d, below %d, that of the snapshot in front of it", e.term, s.term)
	}
	l.Last = l.live[len(l.live)-1].index
	return l.checkCommit()
}

// checkCommit: what is committed is there.
func (l *Log) checkCommit() error {
	if commit := l.HardState.GetCommit(); commit > l.Last {
		return l.damage(l.state, "the commit index is %d, but the last entry is %d", commit, l.Last)
	}
	return nil
}

// less reports whether a place is in front of another.
func (p place) less(other place) bool {
	return p.file < other.file || p.file == other.file && p.offset < other.offset
}

// damage says what is wrong at a place.
func (l *Log) damage(at place, reason string, args ...any) error {
	err := corrupt.At(l.paths[at.file], int64(at.offset), reason, args...)
	err.First, err.Last = at.index, at.index
	return err
}

// entries implements transfer.Contents.Entries.
func (l *Log) entries(yield func(*raftpb.Entry, error) bool) {
	var p []byte
	loaded := -1
	for _, at := range l.live {
		var err error
		if at.file != loaded {
			p, err = readFile(l.paths[at.file])
			loaded = at.file
		}
		var e *raftpb.Entry
		if err == nil {
			e, err = l.entry(p, at)
		}
		if !yield(e, err) || err != nil {
			return
		}
	}
}

// entry reads an entry once more from its file.
func (l *Log) entry(p []byte, at place) (*raftpb.Entry, error) {
	r, err := record{}, errEnd
	if at.offset < len(p) {
		r, err = decode(p, at.offset)
	}
	e := new(raftpb.Entry)
	if err == nil && r.typ == typeEntry && r.sum(at.before) == r.crc {
		err = unmarshal(slices.Clone(r.data), e)
	}
	if err != nil || e.GetIndex() != at.index || e.GetTerm() != at.term {
		return nil, l.damage(at, "the file has changed meanwhile: stop etcd first")
	}
	return e, nil
}

// What a file of the WAL can hold: etcd begins a new one at 64 MiB, behind a record that may
// be larger.
const (
	maxFileBytes = 4 << 30
	maxZeros     = 64 << 20 // at the end of a record that stand in a hole
)

// readFile reads a file of the WAL up to where it holds nothing but a hole, which a copy can
// have made of the zeros that etcd reserves. A hole that follows at once may be the end of
// the last record, so some of it is there, too.
func readFile(path string) (p []byte, err error) {
	f, err := vfs.OS().Open(path, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	var data int64 // where the last data ends
	for at := int64(0); at < size; {
		start, end, err := f.Data(at)
		if err != nil {
			return nil, err
		}
		if start == end {
			break
		}
		data, at = end, end
	}
	if data > maxFileBytes {
		return nil, fmt.Errorf("%w: %s holds %d bytes; etcd's files end soon after 64 MiB", ErrNotEtcd, path, data)
	}
	p = make([]byte, min(size, data+maxZeros))
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, data), p[:data]); err != nil {
		return nil, err
	}
	return p, nil
}
