package metafile

import (
	"bytes"

	"github.com/seed-2fef92ad/raftwal/internal/page"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// WrittenByDgraph reports whether page 0 of a log that was closed, as its twin, page 1, still
// tells, reads as what Dgraph makes of it: it leaves bytes 24 to 511 alone, and what it stores
// around them can be read, and is nowhere older than what was there. Anything else is damage,
// and is healed from the twin.
func WrittenByDgraph(page0, twin []byte) bool {
	was, err := Decode(twin)
	if err != nil || !was.Clean || was.Encrypted || !bytes.Equal(page0[oursBegin:oursEnd], twin[oursBegin:oursEnd]) {
		return false
	}
	get := func(at int) uint64 { return page.Order.Uint64(page0[at:]) }
	return follows(was.RaftID, get(atRaftID)) && follows(was.GroupID, get(atGroupID)) && get(atCheckpoint) >= was.Checkpoint &&
		hardStateFollows(&was, page0, twin) && snapshotFollows(&was, page0, twin)
}

// follows: an id is stored once.
func follows(was, is uint64) bool { return was == 0 || is == was }

// hardStateFollows: the hard state can be read, and is the one that was, or a later one. What
// stands behind it is left alone.
func hardStateFollows(was *Meta, p, twin []byte) bool {
	h := &was.HardState
	n := page.Order.Uint32(p[atHardState:])
	if n == 0 {
		return !h.Stored && bytes.Equal(p[atHardState:atSnapshot], twin[atHardState:atSnapshot])
	}
	var hs raftpb.HardState
	if n > maxHardState || !bytes.Equal(p[atHardState+4+n:atSnapshot], twin[atHardState+4+n:atSnapshot]) || proto.Unmarshal(p[atHardState+4:][:n], &hs) != nil || len(hs.ProtoReflect().GetUnknown()) > 0 ||
		hs.Term == nil || hs.Vote == nil || hs.Commit == nil {
		return false
	}
	voted := hs.GetTerm() > h.Term || h.Vote == 0 || hs.GetVote() == h.Vote
	return hs.GetTerm() >= h.Term && hs.GetCommit() >= h.Commit && voted
}

// snapshotFollows: the snapshot can be read, and is the one that was, byte for byte, or a
// later one.
func snapshotFollows(was *Meta, p, twin []byte) bool {
	index, n := page.Order.Uint64(p[atSnapshot:]), page.Order.Uint32(p[atSnapshot+16:])
	if n > page.Size-atSnapshotData || index < was.Snapshot.Index {
		return false
	}
	end := atSnapshotData + int(n)
	if !bytes.Equal(p[end:], twin[end:]) {
		return false
	}
	if index == was.Snapshot.Index {
		return bytes.Equal(p[atSnapshot:end], twin[atSnapshot:end])
	}
	m := Meta{Snapshot: Position{index, page.Order.Uint64(p[atSnapshot+8:])}, snapshot: p[atSnapshotData:end]}
	return m.checkSnapshot() == nil
}
