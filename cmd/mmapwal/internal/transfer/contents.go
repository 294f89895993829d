// Package transfer has what the formats share that logs are imported from and
// exported to.
package transfer

import (
	"bytes"
	"errors"
	"fmt"
	"iter"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// ErrDiffers: two logs that should be equal are not.
var ErrDiffers = errors.New("the logs differ")

// Contents is what a log holds, in whichever format.
type Contents struct {
	RaftID, GroupID, Checkpoint uint64

	HardState *raftpb.HardState // never nil; blank if none was stored
	Snapshot  *raftpb.Snapshot  // never nil, nor its metadata

	First, Last uint64 // of the entries behind the snapshot; Last is First-1 if there are none

	// Entries yields the entries from First to Last. After an error it ends.
	Entries iter.Seq2[*raftpb.Entry, error]
}

// Count returns the number of entries.
func (c *Contents) Count() int { return int(c.Last + 1 - c.First) }

// Compare returns ErrDiffers, and says where, unless a and b hold the same. An
// error of reading one of them is returned as it is. progress is called with the
// number of entries compared.
func Compare(a, b *Contents, progress func(done int)) error {
	for _, n := range []struct {
		name string
		a, b uint64
	}{
		{"Raft ID", a.RaftID, b.RaftID},
		{"group ID", a.GroupID, b.GroupID},
		{"checkpoint", a.Checkpoint, b.Checkpoint},
		{"term of the hard state", a.HardState.GetTerm(), b.HardState.GetTerm()},
		{"vote", a.HardState.GetVote(), b.HardState.GetVote()},
		{"commit index", a.HardState.GetCommit(), b.HardState.GetCommit()},
		{"first index", a.First, b.First},
		{"last index", a.Last, b.Last},
	} {
		if n.a != n.b {
			return fmt.Errorf("%w: the %s is %d and %d", ErrDiffers, n.name, n.a, n.b)
		}
	}
	if !proto.Equal(raftpb.EnsureSnapshot(a.Snapshot), raftpb.EnsureSnapshot(b.Snapshot)) {
		return fmt.Errorf("%w: in the snapshot", ErrDiffers)
	}
	return compareEntries(a, b, progress)
}

func compareEntries(a, b *Contents, progress func(done int)) error {
	next, stop := iter.Pull2(b.Entries)
	defer stop()
	done := 0
	for x, err := range a.Entries {
		if err != nil {
			return err
		}
		y, err, ok := next()
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("%w: entry %d is in one only", ErrDiffers, x.GetIndex())
		}
		if x.GetIndex() != y.GetIndex() || x.GetTerm() != y.GetTerm() || x.GetType() != y.GetType() || !bytes.Equal(x.GetData(), y.GetData()) {
			return fmt.Errorf("%w: at entry %d", ErrDiffers, x.GetIndex())
		}
		done++
		progress(done)
	}
	if y, err, more := next(); err != nil {
		return err
	} else if more {
		return fmt.Errorf("%w: entry %d is in one only", ErrDiffers, y.GetIndex())
	}
	return nil
}
