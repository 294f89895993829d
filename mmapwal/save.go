package mmapwal

import (
	"slices"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
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
// fall, types of 0 to 255, and at most 1 GiB of data each. The first continues the
// log, or replaces the suffix that begins at its index; entries that are compacted
// already are ignored.
//
// A snapshot is newer than the present one, and replaces the whole log, as in raft's
// MemoryStorage: no entry stays, not one behind its index either, whatever the terms;
// entries of the same Save follow it. FirstIndex becomes the snapshot's index + 1. So it is
// for a snapshot that raft hands over; CreateSnapshot, for one of the state machine here,
// keeps what is behind it. A crash on the way leaves the old log, or the new one. A conf
// state has at most some 200 members. A snapshot of index 0 with a conf state is the way to
// start a group; it is out of date once there is an entry or a hard state.
//
// Errors: ErrInvalid, raft.ErrSnapOutOfDate and ErrNoSpace leave the log as it
// was, and usable; so do *CorruptError and ErrFault, which say that the entry
// before the first one cannot be read, or that a file was cut short. ErrPoisoned
// leaves what is on the disk for the next Open to find: everything that was promised,
// and of this Save a prefix. ErrClosed, ErrReadOnly.
//
// Reads may see entries and commit index before Save returns; a changed term or vote
// only when it is durable.
func (d *DiskStorage) Save(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot) error {
	c, err := d.save(h, es, snap, nil)
	if c.ticket != 0 {
		err = d.wait(c.ticket)
	}
	d.count.saved(c, err)
	return err
}

// wait returns when the Save with that ticket is as durable as the sync policy says.
func (d *DiskStorage) wait(ticket uint64) error {
	defer d.syncer.saves.Done()
	if d.opts.Sync.mode == batchSync {
		return d.bound(ticket)
	}
	return d.await(ticket)
}

// SaveAsync is Save that returns once all is stored in memory, where reads see it, the
// hard state included, and calls done when it is durable under the sync policy: under
// HardSync when it is on the disk, for which many of them share one sync; under BatchSync
// and NoSync soon. So it serves raft's AsyncStorageWrites. A snapshot, and a changed term
// or vote, are on the disk when SaveAsync returns.
//
// The done functions are called one after another, in the order of their Saves, each
// with what Save would have returned; nil is a done that nobody waits for. When one
// Save fails, all Saves fail likewise, and change nothing, until its done function and
// those of the ones queued behind it have returned. A done function holds up those
// behind it, but no sync: their Saves become durable meanwhile. It may call SaveAsync and all
// that reads, but not Save, Close, or what else writes: those may wait for it.
//
// SaveAsync waits while Options.MaxUnsyncedBytes are not on the disk.
func (d *DiskStorage) SaveAsync(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot, done func(error)) {
	if done == nil {
		done = func(error) {}
	}
	c, _ := d.save(h, es, snap, done) // done is told
	if c.ticket == 0 {
		return
	}
	defer d.syncer.saves.Done()
	if d.opts.Sync.mode == batchSync {
		_ = d.bound(c.ticket) // an error is sticky
	} else if d.unsyncedBytes() > d.opts.MaxUnsyncedBytes {
		_ = d.await(c.ticket) // likewise
	}
}

// call is a call of Save or SaveAsync.
type call struct {
	ticket        uint64        // 0: there is nothing to be synced
	began, waited time.Duration // since Open; for the writer's lock
}

// save stores a Save in memory, or wholly. It returns a ticket if there is something
// to be synced, and counts it among those that wait. done is called for a SaveAsync.
func (d *DiskStorage) save(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot, done func(error)) (c call, err error) {
	if d.opts.ReadOnly {
		return c, d.refuseReadOnly(done)
	}
	began := time.Duration(0)
	var w written
	if len(snap.GetData()) >= metafile.MaxInlineSnapshot {
		began = d.count.now()
		var release func()
		if w, release = d.writeAhead(position(snap), snap.GetData()); release != nil {
			defer release()
		}
	}
	c.began, c.waited = d.lockForSave()
	if began > 0 {
		c.began = began
	}
	c.ticket, err = d.stage(h, es, snap, w, d.directBytes(c, done != nil))
	if c.ticket != 0 {
		d.syncer.saves.Add(1)
	}
	if done != nil {
		d.syncer.enqueue(async{c, err, done})
	}
	d.writing.Unlock()
	switch {
	case done == nil:
	case c.ticket != 0 && d.opts.Sync.mode == hardSync:
		d.syncer.flusher.Wake()
	default:
		d.syncer.teller.Wake()
	}
	return c, err
}

func (d *DiskStorage) refuseReadOnly(done func(error)) error {
	err := ErrReadOnly
	if d.isClosed() {
		err = ErrClosed
	}
	if done != nil {
		d.count.saved(call{}, err)
		d.host.Go(func() { done(err) })
	}
	return err
}

// maxDirect is how many bytes of records are written around the page cache at once, at
// most: of more, the disk better writes the first while the last are being collected.
const maxDirect = 512 << 10

// directBytes returns how many bytes of records may go around the page cache: none if others
// are likely to share the sync, or if the caller does not wait for it; and no more than twice
// what the log's own cache holds, since what else is read of them comes from the disk.
func (d *DiskStorage) directBytes(c call, async bool) int64 {
	if async || c.waited > 0 {
		return 0
	}
	return 2 * min(d.opts.CacheSize, maxDirect/2)
}

// stage checks and stores a Save, whose snapshot's data may be written by now. Up to so many
// bytes of its records may go around the page cache. Errors of store poison the log.
func (d *DiskStorage) stage(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot, w written, direct int64) (ticket uint64, err error) {
	p := &d.plan
	p.direct, p.written = direct, w
	defer d.discard(p)
	if err := d.roomy(); err != nil {
		return 0, err
	}
	if err := d.syncer.behind(); err != nil {
		return 0, err
	}
	if err := d.check(p, es, snap); err != nil {
		return 0, err
	}
	if len(p.entries) > 0 || p.snap != nil {
		if err := d.begin(); err != nil {
			return 0, d.poison(err)
		}
	}
	if err := d.makeRoom(p); err != nil {
		return 0, d.poisonIfSync(err)
	}
	ticket, err = d.store(p, h)
	return ticket, d.poison(err)
}

// store does what was planned. It returns a ticket if that is not durable yet as the
// sync policy wants it.
func (d *DiskStorage) store(p *plan, h *raftpb.HardState) (ticket uint64, err error) {
	if p.snap != nil {
		if err := d.installSnapshot(p); err != nil {
			return 0, err
		}
	}
	if len(p.entries) > 0 {
		if err := d.storeEntries(p); err != nil {
			return 0, err
		}
	}
	return d.storeHardState(h, p)
}

// storeEntries appends the entries, file by file.
func (d *DiskStorage) storeEntries(p *plan) error {
	before := int64(entryfile.DataStart)
	if d.tail != nil && len(p.files) == 0 {
		before = d.tail.End()
	}
	rest := p.entries
	if p.inTail > 0 {
		if err := d.appendTail(rest[:p.inTail], p.direct); err != nil {
			return err
		}
		rest = rest[p.inTail:]
	}
	for len(rest) > 0 {
		count := p.counts[0]
		if err := d.rotate(p); err != nil {
			return err
		}
		if err := d.appendTail(rest[:count], p.direct); err != nil {
			return err
		}
		rest = rest[count:]
	}
	d.count.appended(p.entries)
	d.lookAhead(d.tail.End() - before)
	return nil
}

// appendTail stores es in the tail and shows them to reads.
func (d *DiskStorage) appendTail(es []*raftpb.Entry, direct int64) error {
	if len(es) == 0 {
		return nil
	}
	if err := d.tail.Append(es, direct); err != nil {
		return err
	}
	superseded := d.supersede(es[0].GetIndex())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.cache.add(es)
	if superseded {
		d.publishSegments()
	}
	d.publishTail()
	return nil
}

// rotate ends the tail, has it sealed, and puts the next file in its place.
func (d *DiskStorage) rotate(p *plan) error {
	if tail := d.tail; tail != nil {
		full := !d.tailIsFresh() // else it was too small for the next entry
		if err := tail.Terminate(); err != nil {
			return err
		}
		s, x := newSegment(tail), tail.Index()
		s.index = &x
		d.files[len(d.files)-1] = s
		if err := d.retire(tail); err != nil {
			return err
		}
		if full {
			d.count.rotated()
		}
	}
	d.adopt(p)
	d.publish()
	return nil
}

// adopt makes the next file the tail.
func (d *DiskStorage) adopt(p *plan) {
	f := p.files[0]
	p.files, p.counts = p.files[1:], p.counts[1:]
	d.tail = f
	d.count.files.begin(f.Number(), time.Now())
	d.files = append(d.files, segment{file: f, first: 1, last: 0})
	d.next = f.Number() + 1
}

// storeHardState stores h, unless it is empty, and how far the entries are durable.
// A changed term or vote is synced at once, and with it the entries before it. A
// changed commit index alone waits for them.
func (d *DiskStorage) storeHardState(h *raftpb.HardState, p *plan) (ticket uint64, err error) {
	old := d.hard
	if !raft.IsEmptyHardState(h) {
		d.hard = metafile.HardState{Term: h.GetTerm(), Vote: h.GetVote(), Commit: h.GetCommit(), Stored: true}
	}
	promised := d.hard.Term != old.Term || d.hard.Vote != old.Vote
	switch {
	case d.opts.Sync.mode == noSync:
		if d.hard == d.view.meta.HardState {
			return 0, nil
		}
		return 0, d.noteMeta(d.hard)
	case promised:
		return 0, d.syncHardState()
	case len(p.entries) == 0 && d.hard == old && !d.syncer.pending():
		return 0, nil
	case d.hard == old:
		return d.syncer.stage(len(p.entries), nil), nil
	case len(p.entries) == 0 && !d.syncer.pending():
		return 0, d.noteMeta(d.hard)
	}
	d.publishHard()
	return d.syncer.stage(len(p.entries), &d.hard), nil
}

// syncHardState makes all entries and then the hard state durable.
func (d *DiskStorage) syncHardState() error {
	if err := d.syncData(); err != nil {
		return err
	}
	m := d.meta.Meta()
	m.HardState, m.Durable = d.hard, d.durable()
	if err := d.meta.Commit(m); err != nil {
		return err
	}
	d.syncer.finishAll()
	d.publishMeta()
	return nil
}

// noteMeta stores a hard state, and how far the entries are durable, without a sync.
func (d *DiskStorage) noteMeta(hard metafile.HardState) error {
	durable := d.durable()
	if old := &d.view.meta; hard == old.HardState && durable == old.Durable {
		return nil
	}
	m := d.meta.Meta()
	m.HardState, m.Durable, m.Behind = hard, durable, metafile.End{}
	if d.opts.Sync.mode == noSync {
		m.Behind = d.reached()
	}
	if err := d.meta.Note(m); err != nil {
		return err
	}
	d.publishMeta()
	return nil
}

// reached returns the end of the records that are stored; none if there are none.
func (d *DiskStorage) reached() metafile.End {
	for _, s := range slices.Backward(d.files) {
		if s.file.End() > entryfile.DataStart {
			return foundEnd(s.file)
		}
	}
	return metafile.End{}
}

func foundEnd(f *entryfile.File) metafile.End {
	return metafile.End{File: f.Number(), Offset: f.End(), Salt: f.Salt()}
}

// publishMeta shows reads what wal.meta holds.
func (d *DiskStorage) publishMeta() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.meta, d.view.hard = d.meta.Meta(), d.hard
}

// publishHard shows reads the hard state, which may wait for entries to be durable.
func (d *DiskStorage) publishHard() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.view.hard = d.hard
}
