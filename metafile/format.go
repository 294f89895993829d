package metafile

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A page of wal.meta. All integers are big-endian; what is not listed is zero.
//
//	at    size  field
//	   0     8  Raft ID
//	   8     8  group ID
//	  16     8  checkpoint index
//	  24     8  magic "RAFTWALm"
//	  32     4  format version
//	  36     4  flags: 1 clean, 2 encrypted, 4 the snapshot's data is in a file,
//	          8 in a file that is not encrypted, of the time before the log was
//	  40     8  sequence number of this page; the highest valid one counts
//	  48     8  log ID, random, repeated in the header of each entry file
//	  56     4  sync policy of the last run: 0 HardSync, 1 BatchSync, 2 NoSync
//	  60     4  CRC-32C of the bytes in use, without this field
//	  64     8  compacted index: entries at or below it are gone
//	  72     8  compacted term: the term of the entry there
//	  80     8  first live file: files of a lower number are dead
//	  88     8  durable end: number of the file; all before it are durable whole
//	  96     8  durable end: offset in that file, in bytes
//	 104     8  data of normal entries below this index is cleared,
//	 112     8    if they stand in a file before this one,
//	 120     8    or in it before this offset
//	 128     4  bytes in use, from the start of the page
//	 132     4  durable end: salt of the file, which tells it from others of its number
//	 136     8  entry files from this number on are encrypted; 0: none is
//	 144     8  of a log that was closed: sum of what the file system said of the files that
//	            count, when all were synced; 0: not known
//	 152     8  the hard state counts only if the records reach this place: number of the
//	 160     8    file; 0: it counts in any case; and offset in it, in bytes
//	 168     4    salt of that file
//	 176     8  snapshot file: the first bytes of the SHA-256 of what tells it from others,
//	            its header and, encrypted, its wrapped data key; 0: not known
//	 512     4  length of the hard state; 0: none was stored
//	 516     -  hard state (protobuf)
//	1024     8  snapshot index
//	1032     8  snapshot term
//	1040     4  length of the snapshot
//	1044     -  snapshot (protobuf), without its data if that is in a file
//
// If the log is encrypted, the snapshot is sealed (a random nonce, ciphertext,
// tag), and these follow it:
//
//   - 4  length of the wrapped directory key
//   - -  the directory key, wrapped by the master key (at most 448 bytes)
//   - 32  MAC of the bytes in use, without this field and the CRC-32C
const (
	atRaftID       = 0
	atGroupID      = 8
	atCheckpoint   = 16
	atMagic        = 24
	atVersion      = 32
	atFlags        = 36
	atSequence     = 40
	atLogID        = 48
	atSyncPolicy   = 56
	atChecksum     = 60
	atCompacted    = 64
	atFirstFile    = 80
	atDurableFile  = 88
	atDurableEnd   = 96
	atClearedBelow = 104
	atClearedFile  = 112
	atClearedEnd   = 120
	atUsed         = 128
	atDurableSalt  = 132
	atEncrypted    = 136
	atStamp        = 144
	atBehind       = 152
	atSnapshotSum  = 176
	atHardState    = 512
	atSnapshot     = 1024
	atSnapshotData = atSnapshot + 20

	oursBegin, oursEnd = atMagic, atHardState // Dgraph leaves these bytes zero

	flagClean          = 1 << 0
	flagEncrypted      = 1 << 1
	flagSnapshotInFile = 1 << 2
	flagSnapshotPlain  = 1 << 3

	maxHardState = atSnapshot - atHardState - 4
	maxSnapshot  = 2496 // unsealed
)

// The compiler checks that the largest page fits: a negative array length does
// not build.
var _ [page.Size - (atSnapshotData + maxSnapshot + encryption.SealedOverhead + 4 + encryption.MaxWrapped + encryption.MACBytes)]byte

// MaxInlineSnapshot is the size in bytes from which on a marshalled snapshot's
// data goes to a file of its own.
const MaxInlineSnapshot = 2000

// Version of the format that this package writes, and the newest it reads.
const Version = 1

const magic = "RAFTWALm"

// Errors of Decode.
var (
	errNotOurs  = errors.New("the magic number is missing")
	errBlank    = fmt.Errorf("never written, or zeroed: %w", errNotOurs)
	errChecksum = errors.New("the checksum does not match")
	// ErrVersion: the page was written by a newer version of this package.
	ErrVersion = errors.New("written by a newer version")
	// ErrTooLarge: a conf state too large for the page (beyond 200 members).
	ErrTooLarge = errors.New("metafile: the snapshot's metadata does not fit into a page")
)

// Position names an entry by index and term.
type Position struct{ Index, Term uint64 }

// End is a place in the sequence of entry files.
type End struct {
	File   uint64 // number of the file; 0: none yet
	Offset int64  // bytes
	Salt   uint32 // of the file; only Durable and Behind have it
}

// HardState is raft's, stored or not yet.
type HardState struct {
	Term, Vote, Commit uint64
	Stored             bool
}

// Meta is the content of a page. It is a value: copies share nothing that changes.
type Meta struct {
	RaftID, GroupID, Checkpoint uint64

	LogID        uint64
	Clean        bool // the last run ended with Close
	Encrypted    bool
	SyncPolicy   uint32
	Compacted    Position // entries up to it are gone
	FirstFile    uint64   // number of the first live entry file
	Durable      End      // all data in front of it was synced
	ClearedBelow uint64   // normal entries below this index read without data,
	ClearedEnd   End      // unless their records stand at or behind this place

	WrappedKey    []byte // the directory key; empty unless Encrypted
	EncryptedFrom uint64 // entry files from this number on are encrypted
	Stamp         uint64 // of a closed log: of its files, as the file system knows them; 0: not known

	HardState HardState
	Behind    End // the records that HardState was stored behind, if they were not synced

	Snapshot       Position
	SnapshotInFile bool   // the snapshot's data is in a file of its own
	SnapshotPlain  bool   // which is not encrypted, though the log is
	SnapshotSum    uint64 // of that file, as WriteSnapshot returned it; 0: not known
	snapshot       []byte
	sealed         []byte // the snapshot as an encrypted page has it; nil: to be sealed

	sequence uint64
}

// SetSnapshot makes s the snapshot, without its data if that is in a file.
// ErrTooLarge if the page cannot hold what is left of it.
func (m *Meta) SetSnapshot(s *raftpb.Snapshot, dataInFile bool) error {
	if dataInFile {
		s = &raftpb.Snapshot{Metadata: s.GetMetadata()}
	}
	b, err := proto.Marshal(s)
	if err != nil {
		return fmt.Errorf("metafile: marshal snapshot: %w", err)
	}
	if len(b) > maxSnapshot {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, len(b), maxSnapshot)
	}
	m.Snapshot = Position{Index: s.GetMetadata().GetIndex(), Term: s.GetMetadata().GetTerm()}
	m.SnapshotInFile, m.SnapshotPlain, m.SnapshotSum = dataInFile, false, 0
	m.snapshot, m.sealed = b, nil
	return nil
}

// sealSnapshot encrypts the snapshot, if that is not done yet.
func (m *Meta) sealSnapshot(keys *encryption.DirectoryKey, random io.Reader) (err error) {
	if m.Encrypted && m.sealed == nil {
		m.sealed, err = keys.Seal(random, m.snapshot, m.snapshotAD())
	}
	return err
}

// openSnapshot decrypts the snapshot of a page that was read.
func (m *Meta) openSnapshot(keys *encryption.DirectoryKey) (err error) {
	if m.snapshot, err = keys.Open(m.sealed, m.snapshotAD()); err != nil {
		return fmt.Errorf("the snapshot: %w", err)
	}
	return m.checkSnapshot()
}

func (m *Meta) snapshotAD() []byte {
	ad := []byte("inline snapshot")
	ad = page.Order.AppendUint64(ad, m.Snapshot.Index)
	return page.Order.AppendUint64(ad, m.Snapshot.Term)
}

// SnapshotProto returns a new copy of the snapshot, without its data if that
// is in a file. The metadata and the conf state are never nil.
func (m *Meta) SnapshotProto() (*raftpb.Snapshot, error) {
	s := new(raftpb.Snapshot)
	if err := proto.Unmarshal(m.snapshot, s); err != nil {
		return nil, fmt.Errorf("metafile: unmarshal snapshot: %w", err)
	}
	return raftpb.EnsureSnapshot(s), nil
}

// Encode writes m as a page into p, which is page.Size bytes long. auth is for an
// encrypted log, else nil.
func (m *Meta) Encode(p []byte, auth *encryption.Authenticator) {
	clear(p)
	put := func(at int, v uint64) { page.Order.PutUint64(p[at:], v) }
	put(atRaftID, m.RaftID)
	put(atGroupID, m.GroupID)
	put(atCheckpoint, m.Checkpoint)
	copy(p[atMagic:], magic)
	page.Order.PutUint32(p[atVersion:], Version)
	page.Order.PutUint32(p[atFlags:], m.flags())
	put(atSequence, m.sequence)
	put(atLogID, m.LogID)
	page.Order.PutUint32(p[atSyncPolicy:], m.SyncPolicy)
	put(atCompacted, m.Compacted.Index)
	put(atCompacted+8, m.Compacted.Term)
	put(atFirstFile, m.FirstFile)
	put(atDurableFile, m.Durable.File)
	put(atDurableEnd, uint64(m.Durable.Offset))
	page.Order.PutUint32(p[atDurableSalt:], m.Durable.Salt)
	put(atClearedBelow, m.ClearedBelow)
	put(atClearedFile, m.ClearedEnd.File)
	put(atClearedEnd, uint64(m.ClearedEnd.Offset))
	put(atEncrypted, m.EncryptedFrom)
	put(atStamp, m.Stamp)
	put(atBehind, m.Behind.File)
	put(atBehind+8, uint64(m.Behind.Offset))
	page.Order.PutUint32(p[atBehind+16:], m.Behind.Salt)
	put(atSnapshotSum, m.SnapshotSum)
	m.HardState.encode(p[atHardState:atSnapshot])
	put(atSnapshot, m.Snapshot.Index)
	put(atSnapshot+8, m.Snapshot.Term)
	snapshot := m.snapshot
	if m.Encrypted {
		snapshot = m.sealed
	}
	page.Order.PutUint32(p[atSnapshot+16:], uint32(len(snapshot)))
	used := atSnapshotData + copy(p[atSnapshotData:], snapshot)
	if m.Encrypted {
		page.Order.PutUint32(p[used:], uint32(len(m.WrappedKey)))
		used += 4 + copy(p[used+4:], m.WrappedKey) + encryption.MACBytes
	}
	page.Order.PutUint32(p[atUsed:], uint32(used))
	if m.Encrypted {
		before, after := signed(p[:used])
		auth.Sum(p[:used-encryption.MACBytes], encryption.MetaPage, before, after)
	}
	page.Seal(p[:used], atChecksum)
}

// signed returns what the MAC of an encrypted page covers, given its bytes in
// use: all but the checksum and the MAC.
func signed(p []byte) (before, after []byte) {
	return p[:atChecksum], p[atChecksum+4 : len(p)-encryption.MACBytes]
}

// authentic reports whether the MAC of an encrypted page that Decode accepted is
// right.
func authentic(p []byte, auth *encryption.Authenticator) bool {
	p = p[:page.Order.Uint32(p[atUsed:])]
	before, after := signed(p)
	return auth.Verify(p[len(p)-encryption.MACBytes:], encryption.MetaPage, before, after)
}

func (m *Meta) flags() (f uint32) {
	if m.Clean {
		f |= flagClean
	}
	if m.Encrypted {
		f |= flagEncrypted
	}
	if m.SnapshotInFile {
		f |= flagSnapshotInFile
	}
	if m.SnapshotPlain {
		f |= flagSnapshotPlain
	}
	return f
}

// encode writes what proto.Marshal would, with all fields present, without
// allocating.
func (h *HardState) encode(p []byte) {
	if !h.Stored {
		return
	}
	b := p[4:4]
	for i, v := range [...]uint64{h.Term, h.Vote, h.Commit} {
		b = protowire.AppendTag(b, protowire.Number(i+1), protowire.VarintType)
		b = protowire.AppendVarint(b, v)
	}
	page.Order.PutUint32(p, uint32(len(b)))
}

// Decode reads a page, which must be page.Size bytes long. It accepts exactly
// what Encode writes, and trusts no field before the checksum is checked. Of an
// encrypted page the MAC is not checked, and the snapshot not opened.
func Decode(p []byte) (Meta, error) {
	if len(p) != page.Size {
		return Meta{}, fmt.Errorf("a page has %d bytes, not %d", page.Size, len(p))
	}
	if string(p[atMagic:atMagic+len(magic)]) != magic {
		return Meta{}, errNotOurs
	}
	used := page.Order.Uint32(p[atUsed:])
	if used < atSnapshotData || used > page.Size || !page.Sealed(p[:used], atChecksum) {
		return Meta{}, errChecksum
	}
	if v := page.Order.Uint32(p[atVersion:]); v != Version {
		return Meta{}, fmt.Errorf("%w (format %d; this one reads %d)", ErrVersion, v, Version)
	}
	get := func(at int) uint64 { return page.Order.Uint64(p[at:]) }
	flags := page.Order.Uint32(p[atFlags:])
	m := Meta{
		RaftID:         get(atRaftID),
		GroupID:        get(atGroupID),
		Checkpoint:     get(atCheckpoint),
		LogID:          get(atLogID),
		Clean:          flags&flagClean != 0,
		Encrypted:      flags&flagEncrypted != 0,
		SyncPolicy:     page.Order.Uint32(p[atSyncPolicy:]),
		Compacted:      Position{get(atCompacted), get(atCompacted + 8)},
		FirstFile:      get(atFirstFile),
		Durable:        End{get(atDurableFile), int64(get(atDurableEnd)), page.Order.Uint32(p[atDurableSalt:])},
		ClearedBelow:   get(atClearedBelow),
		ClearedEnd:     End{File: get(atClearedFile), Offset: int64(get(atClearedEnd))},
		Snapshot:       Position{get(atSnapshot), get(atSnapshot + 8)},
		EncryptedFrom:  get(atEncrypted),
		Stamp:          get(atStamp),
		Behind:         End{get(atBehind), int64(get(atBehind + 8)), page.Order.Uint32(p[atBehind+16:])},
		SnapshotSum:    get(atSnapshotSum),
		SnapshotInFile: flags&flagSnapshotInFile != 0,
		SnapshotPlain:  flags&flagSnapshotPlain != 0,
		sequence:       get(atSequence),
	}
	if err := m.HardState.decode(p[atHardState:atSnapshot]); err != nil {
		return Meta{}, err
	}
	return m, m.decodeSnapshot(p[:used])
}

func (h *HardState) decode(p []byte) error {
	n := page.Order.Uint32(p)
	if n == 0 {
		return nil
	}
	if n > maxHardState {
		return fmt.Errorf("the hard state's length of %d bytes exceeds %d", n, maxHardState)
	}
	var hs raftpb.HardState
	if err := proto.Unmarshal(p[4:4+n], &hs); err != nil {
		return fmt.Errorf("the hard state cannot be read: %w", err)
	}
	*h = HardState{Term: hs.GetTerm(), Vote: hs.GetVote(), Commit: hs.GetCommit(), Stored: true}
	return nil
}

func (m *Meta) decodeSnapshot(p []byte) error {
	n := page.Order.Uint32(p[atSnapshot+16:])
	if uint64(n) > uint64(len(p)-atSnapshotData) {
		return fmt.Errorf("the snapshot's length of %d bytes exceeds the page", n)
	}
	snapshot, rest := append([]byte(nil), p[atSnapshotData:atSnapshotData+int(n)]...), p[atSnapshotData+int(n):]
	if m.Encrypted {
		m.sealed = snapshot
		return m.decodeKey(rest)
	}
	m.snapshot = snapshot
	return m.checkSnapshot()
}

func (m *Meta) decodeKey(p []byte) error {
	if len(p) < 4+encryption.MACBytes || int64(page.Order.Uint32(p)) != int64(len(p)-4-encryption.MACBytes) {
		return errors.New("the wrapped key and its length do not fit into the page")
	}
	m.WrappedKey = bytes.Clone(p[4 : len(p)-encryption.MACBytes])
	return nil
}

func (m *Meta) checkSnapshot() error {
	s, err := m.SnapshotProto()
	if err != nil {
		return fmt.Errorf("the snapshot cannot be read: %w", err)
	}
	if got := (Position{s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm()}); got != m.Snapshot {
		return fmt.Errorf("the snapshot is of %+v, the page says %+v", got, m.Snapshot)
	}
	return nil
}
