package dgraph

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// wal.meta. All integers are big-endian.
//
//	at    size  field
//	   0     8  Raft ID
//	   8     8  group ID
//	  16     8  checkpoint index
//	 512     4  length of the hard state; 0: none was stored
//	 516     -  hard state (protobuf)
//	1024     8  snapshot index
//	1032     8  snapshot term
//	1040     4  length of the snapshot; 0: none was stored
//	1044     -  snapshot (protobuf)
//
// NNNNN.wal:
//
//	     at     size  field
//	      0  960,000  30,000 slots; the first one of index 0 ends them
//	1 MiB-16       8  number of the data key; 0: not encrypted
//	 1 MiB-8       8  first half of the IV
//	   1 MiB       -  data: for each entry its length (4) and itself
//
// A slot:
//
//	at  size  field
//	 0     8  term
//	 8     8  index
//	16     8  offset of the length and the data; 0: the data is empty
//	24     8  entry type, of which the lower half counts
const (
	metaName = "wal.meta"

	metaBytes   = 1 << 20 // of a new wal.meta; one with a large snapshot is longer
	atGroupID   = 8
	atCheckpt   = 16
	atUnused    = 24 // and up to the hard state: zeros
	atHardState = 512
	atSnapshot  = 1024
	atSnapData  = atSnapshot + 16 // its length, to begin with

	maxHardState = atSnapshot - atHardState - 4

	slotBytes = 32
	maxSlots  = 30_000
	atKey     = dataStart - 16
	dataStart = 1 << 20
)

// MaxSnapshot is how many bytes a marshalled snapshot may have for Write. Dgraph
// loses the end of one that only just fits into its wal.meta.
const MaxSnapshot = 2999

var order = binary.BigEndian

// slot is a slot and its place in the file.
type slot struct {
	number              int
	term, index, offset uint64
	typ                 uint32
	unsummed            bool // without the checksum that package mmapwal stores above the type
}

func decodeSlot(slots []byte, number int) slot {
	p := slots[number*slotBytes:][:slotBytes]
	return slot{
		number: number,
		term:   order.Uint64(p), index: order.Uint64(p[8:]), offset: order.Uint64(p[16:]),
		typ: order.Uint32(p[28:]), unsummed: order.Uint32(p[24:]) == 0,
	}
}

func (s slot) encode(p []byte) {
	order.PutUint64(p, s.term)
	order.PutUint64(p[8:], s.index)
	order.PutUint64(p[16:], s.offset)
	order.PutUint64(p[24:], uint64(s.typ))
}

// damagedSlot names a slot that Dgraph cannot have written.
func damagedSlot(path string, s slot, reason string, args ...any) error {
	err := corrupt.At(path, int64(s.number)*slotBytes, "slot %d: %s", s.number, fmt.Sprintf(reason, args...))
	err.First, err.Last = s.index, s.index
	return err
}

// readMeta reads dir's wal.meta into c. first is the beginning of the file.
func readMeta(dir string, c *transfer.Contents) (first []byte, err error) {
	path := filepath.Join(dir, metaName)
	f, err := transfer.OpenFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotDgraph, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	first = make([]byte, min(info.Size(), firstPages))
	if _, err := io.ReadFull(f, first); err != nil {
		return nil, err
	}
	if len(first) < atSnapData+4 {
		return nil, corrupt.At(path, info.Size(), "the file is cut short: a wal.meta of Dgraph has at least 4 KB")
	}
	m := metaFile{path: path, f: f, size: info.Size(), first: first}
	return first, m.decode(c)
}

// metaFile is a wal.meta that is being read.
type metaFile struct {
	path  string
	f     io.ReaderAt
	size  int64
	first []byte
}

func (m *metaFile) decode(c *transfer.Contents) error {
	c.RaftID, c.GroupID, c.Checkpoint = order.Uint64(m.first), order.Uint64(m.first[atGroupID:]), order.Uint64(m.first[atCheckpt:])
	c.HardState, c.Snapshot = new(raftpb.HardState), new(raftpb.Snapshot)
	if err := m.message(atHardState, maxHardState, c.HardState, "hard state"); err != nil {
		return err
	}
	if err := m.message(atSnapData, m.size-atSnapData-4, c.Snapshot, "snapshot"); err != nil {
		return err
	}
	c.Snapshot = raftpb.EnsureSnapshot(c.Snapshot)
	at := c.Snapshot.GetMetadata()
	index, term := order.Uint64(m.first[atSnapshot:]), order.Uint64(m.first[atSnapshot+8:])
	if at.GetIndex() != index || at.GetTerm() != term {
		return corrupt.At(m.path, atSnapshot, "the snapshot is that of entry %d of term %d, but the numbers in front of it are %d and %d",
			at.GetIndex(), at.GetTerm(), index, term)
	}
	if index == math.MaxUint64 {
		return corrupt.At(m.path, atSnapshot, "the snapshot has the highest index there is")
	}
	return nil
}

// message reads a message that stands at an offset, behind its length.
func (m *metaFile) message(at int64, longest int64, to proto.Message, name string) error {
	n := int64(order.Uint32(m.first[at:]))
	if n > longest || at+4+n > m.size {
		return corrupt.At(m.path, at, "the length of the %s is %d bytes; at most %d fit", name, n, max(0, min(longest, m.size-at-4)))
	}
	p := make([]byte, n)
	if _, err := m.f.ReadAt(p, at+4); n > 0 && err != nil {
		return fmt.Errorf("%s: read the %s: %w", m.path, name, err)
	}
	if err := proto.Unmarshal(p, to); err != nil {
		return corrupt.At(m.path, at+4, "the %s cannot be read: %v", name, err)
	}
	return nil
}

// encodeMeta returns the used part of a wal.meta.
func encodeMeta(c *transfer.Contents) ([]byte, error) {
	hard, err := proto.Marshal(c.HardState)
	if err != nil {
		return nil, fmt.Errorf("marshal the hard state: %w", err)
	}
	snap, err := proto.Marshal(c.Snapshot)
	if err != nil {
		return nil, fmt.Errorf("marshal the snapshot: %w", err)
	}
	if len(snap) > MaxSnapshot {
		return nil, fmt.Errorf("%w: the one at %d has %d bytes, the limit is %d: create a smaller one first",
			ErrSnapshotTooLarge, c.Snapshot.GetMetadata().GetIndex(), len(snap), MaxSnapshot)
	}
	p := make([]byte, atSnapData+4+len(snap))
	order.PutUint64(p, c.RaftID)
	order.PutUint64(p[atGroupID:], c.GroupID)
	order.PutUint64(p[atCheckpt:], c.Checkpoint)
	order.PutUint32(p[atHardState:], uint32(len(hard)))
	copy(p[atHardState+4:atSnapshot], hard)
	order.PutUint64(p[atSnapshot:], c.Snapshot.GetMetadata().GetIndex())
	order.PutUint64(p[atSnapshot+8:], c.Snapshot.GetMetadata().GetTerm())
	order.PutUint32(p[atSnapData:], uint32(len(snap)))
	copy(p[atSnapData+4:], snap)
	return p, nil
}
