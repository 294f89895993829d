package mmapwal

import (
	"github.com/seed-2fef92ad/raftwal/metafile"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Save stores, in this order, the snapshot, the entries and the hard state; each
// may be nil or empty. Under HardSync everything survives a power cut once Save
// has returned nil, but for a hard state of which only the commit index changed:
// that may come back older, as raft allows. Under NoSync everything survives the
// death of the process.
//
// Entries have consecutive indexes of at least 1, terms of at least 1 that do not
// fall, types of 0 to 255, and at most 1 GiB of data each. A snapshot's conf state
// has at most some 200 members. The first continues the log, or replaces the suffix that begins
// at its index; entries that are compacted already are ignored. A snapshot is
// newer than the present one. If the log has the entry at the snapshot's index
// with the snapshot's term, the entries behind it are kept; if not, the snapshot
// empties the log. FirstIndex becomes the snapshot's index + 1. A snapshot of
// index 0 with a conf state is the way to start a group; it is out of date once
// there is an entry or a hard state.
//
// Errors: ErrInvalid, raft.ErrSnapOutOfDate and ErrNoSpace leave the log as it
// was, and usable; so do *CorruptError and ErrFault, which say that the entry
// before the first one cannot be read, or that a file was cut short. ErrPoisoned leaves what is on the disk for the next Open to
// find: everything that was promised, and of this Save a prefix. ErrClosed,
// ErrReadOnly.
//
// Reads may see the entries before Save returns.
func (d *DiskStorage) Save(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := d.writable(); err != nil {
		return err
	}
	p := &d.plan
	defer d.discard(p)
	if err := d.check(p, es, snap); err != nil {
		return err
	}
	if err := d.makeRoom(p); err != nil {
		return d.poisonIfSync(err)
	}
	return d.poison(d.store(p, h))
}

// store does what was planned. Any error poisons the log.
func (d *DiskStorage) store(p *plan, h *raftpb.HardState) error {
	if p.snap != nil {
		if err := d.installSnapshot(p); err != nil {
			return err
		}
	}
	if len(p.entries) > 0 {
		if err := d.storeEntries(p); err != nil {
			return err
		}
	}
	return d.storeHardState(h)
}

// storeEntries appends the entries, file by file, and syncs the last one; those
// before it are synced by being sealed.
func (d *DiskStorage) storeEntries(p *plan) error {
	rest := p.entries
	if p.inTail > 0 {
		if err := d.appendTail(rest[:p.inTail]); err != nil {
			return err
		}
		rest = rest[p.inTail:]
	}
	for len(rest) > 0 {
		count := p.counts[0]
		if err := d.rotate(p); err != nil {
			return err
		}
		if err := d.appendTail(rest[:count]); err != nil {
			return err
		}
		rest = rest[count:]
	}
	if d.opts.Sync == NoSync {
		return nil
	}
	return d.tail.Sync()
}

// appendTail stores es in the tail and shows them to reads.
func (d *DiskStorage) appendTail(es []*raftpb.Entry) error {
	if err := d.tail.Append(es); err != nil {
		return err
	}
	if d.supersede(es[0].GetIndex()) {
		d.publish()
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.publishTail()
	return nil
}

// rotate seals the tail and puts the next prepared file in its place.
func (d *DiskStorage) rotate(p *plan) error {
	if d.tail != nil {
		if err := d.tail.Seal(); err != nil {
			return err
		}
		d.files[len(d.files)-1] = newSegment(d.tail)
	}
	if err := d.adopt(p); err != nil {
		return err
	}
	d.publish()
	return nil
}

// adopt gives the next prepared file its name and makes it the tail.
func (d *DiskStorage) adopt(p *plan) error {
	f := p.files[0]
	if err := f.Publish(); err != nil {
		return err
	}
	p.files, p.counts = p.files[1:], p.counts[1:]
	d.tail = f
	d.files = append(d.files, segment{file: f, first: 1, last: 0})
	d.next = f.Number() + 1
	return nil
}

// storeHardState stores h, unless it is empty, and how far the entries are
// durable. Only a changed term or vote is synced.
func (d *DiskStorage) storeHardState(h *raftpb.HardState) error {
	old := d.meta.Meta()
	m := old
	m.Durable = d.durable()
	if !raft.IsEmptyHardState(h) {
		m.HardState = metafile.HardState{Term: h.GetTerm(), Vote: h.GetVote(), Commit: h.GetCommit(), Stored: true}
	}
	if m.HardState == old.HardState && m.Durable == old.Durable {
		return nil
	}
	promised := m.HardState.Term != old.HardState.Term || m.HardState.Vote != old.HardState.Vote
	var err error
	if promised && d.opts.Sync != NoSync {
		err = d.meta.Commit(m)
	} else {
		err = d.meta.Note(m)
	}
	if err != nil {
		return err
	}
	d.publishMeta()
	return nil
}

// durable returns how far the entries were synced.
func (d *DiskStorage) durable() metafile.End {
	if d.tail == nil {
		return d.meta.Meta().Durable
	}
	return metafile.End{File: d.tail.Number(), Offset: d.tail.Durable(), Salt: d.tail.Salt()}
}

// publishMeta shows reads what wal.meta holds.
func (d *DiskStorage) publishMeta() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.meta = d.meta.Meta()
}
