package mmapwal

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// syncer makes Saves durable that are stored already, as many at once as there are:
// those that wait share one sync. Each Save has a ticket; they are durable in this
// order. Whoever waits, and finds nobody syncing, does it; for SaveAsync and BatchSync
// it is done in the background. The done functions of SaveAsync, which may take any time,
// are called by another part of the background, so that nothing waits for them but those
// behind them.
type syncer struct {
	saves sync.WaitGroup // Saves that wait

	mu      sync.Mutex
	turn    *sync.Cond // broadcast when a sync ended
	syncing bool
	last    atomic.Uint64 // ticket of the Save that was stored last
	durable uint64        // ticket up to which Saves are durable, hard states included
	asked   uint64        // ticket of the last SaveAsync that waits for a sync
	hards   []staged      // hard states that are not stored yet, rising
	queue   []async       // in the order of their Saves; its memory is used again
	undone  atomic.Int64  // done functions that have not returned

	failing atomic.Pointer[error] // what a SaveAsync of the queue failed with; those behind it do, too

	entries, durableEntries uint64 // numbers of entries stored, and made durable

	expected uint64        // how many Saves are likely to wait for the next sync
	took     time.Duration // by the last one

	flusher *host.Runner // syncs
	teller  *host.Runner // calls done functions
	timer   *host.Timer  // BatchSync: the interval
	due     bool         // BatchSync: the flusher has to sync
}

// staged is a hard state of which only the commit index has changed. It is stored once
// the entries before it are durable: of others at its index it would say that they
// are committed.
type staged struct {
	ticket uint64
	hard   metafile.HardState
}

// async is a SaveAsync whose done was not called yet.
type async struct {
	call
	err  error // it failed, and changed nothing
	done func(error)
}

func (d *DiskStorage) startSyncer() {
	s := &d.syncer
	s.turn = sync.NewCond(&s.mu)
	s.flusher = host.NewRunner(d.host, d.flush)
	s.teller = host.NewRunner(d.host, d.tell)
	s.timer = host.NewTimer(d.host, d.intervalOver)
}

// stage gives the Save that was just stored, with so many entries, its ticket.
func (s *syncer) stage(entries int, hard *metafile.HardState) (ticket uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ticket = s.last.Add(1)
	s.entries += uint64(entries)
	if hard != nil {
		s.hards = append(s.hards, staged{ticket, *hard})
	}
	return ticket
}

// pending reports whether there are Saves that are stored and not durable.
func (s *syncer) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable < s.last.Load()
}

// behind returns what a Save fails with because one before it did; nil if none did.
func (s *syncer) behind() error {
	if err := s.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// enqueue adds a SaveAsync.
func (s *syncer) enqueue(a async) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, a)
	s.undone.Add(1)
	s.asked = max(s.asked, a.ticket)
	if a.err != nil {
		err := a.err // it is on the heap in here only
		s.failing.CompareAndSwap(nil, &err)
	}
}

// await returns when the Save with that ticket is durable, or cannot be any more.
func (d *DiskStorage) await(ticket uint64) error {
	s := &d.syncer
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.durable < ticket {
		if s.syncing {
			s.turn.Wait()
			continue
		}
		s.syncing = true
		s.gather(d.count.now)
		before, upto, entries := s.durable, s.last.Load(), s.entries
		s.mu.Unlock()
		began := d.count.now()
		err := d.syncUpTo(upto, entries)
		s.mu.Lock()
		s.expected, s.took = s.last.Load()-before, d.count.now()-began
		s.syncing = false
		s.turn.Broadcast()
		if err != nil {
			return err
		}
	}
	return nil
}

// A sync waits a little for Saves that are likely to come at once: whoever has Saves
// under way saves again when the last sync has ended. It does not, if all that were
// under way then are there, so that a single caller never waits.
const (
	gatherPart = 8                      // of the time that the last sync took, at most
	maxGather  = 500 * time.Microsecond // a slow disk is no reason to keep a processor busy
)

// gather waits for the Saves that are expected; mu is released meanwhile.
func (s *syncer) gather(now func() time.Duration) {
	target := s.durable + s.expected
	wait := min(s.took/gatherPart, maxGather)
	s.mu.Unlock()
	for end := now() + wait; s.last.Load() < target && now() < end; {
		runtime.Gosched()
	}
	s.mu.Lock()
}

// syncUpTo makes the Saves up to that ticket durable. Writers go on meanwhile.
func (d *DiskStorage) syncUpTo(ticket, entries uint64) error {
	if err := d.poisoned(); err != nil {
		return err
	}
	err := d.syncShared()
	d.writing.Lock()
	defer d.writing.Unlock()
	if d.released {
		return ErrClosed // Close has made all durable
	}
	if err == nil {
		err = d.finish(ticket, entries)
	}
	return d.poison(err)
}

// syncShared is syncData beside a writer. The tail is looked up first: a file that is
// retired after that was the tail.
func (d *DiskStorage) syncShared() error {
	s := d.count.beginSync()
	d.mu.RLock()
	tail := d.view.tail
	pinned := tail != nil && tail.Pin()
	d.mu.RUnlock()
	if !pinned {
		return d.syncFiles(s, nil)
	}
	defer func() { _ = tail.Release() }()
	return d.syncFiles(s, tail)
}

// finish stores the newest hard state of the Saves up to that ticket, whose entries
// are durable, and how far entries are.
func (d *DiskStorage) finish(ticket, entries uint64) error {
	s := &d.syncer
	s.mu.Lock()
	hard := d.view.meta.HardState
	n := 0
	for ; n < len(s.hards) && s.hards[n].ticket <= ticket; n++ {
		hard = s.hards[n].hard
	}
	s.hards = append(s.hards[:0], s.hards[n:]...)
	s.mu.Unlock()
	if err := d.noteMeta(hard); err != nil {
		return err
	}
	s.mu.Lock()
	s.durable = max(s.durable, ticket)
	s.durableEntries = max(s.durableEntries, entries)
	s.mu.Unlock()
	return nil
}

// finishAll says that all that is stored is durable, hard states included.
func (s *syncer) finishAll() {
	s.mu.Lock()
	s.durable, s.durableEntries = s.last.Load(), s.entries
	s.hards = s.hards[:0]
	s.mu.Unlock()
}

// flush is what the flusher does: it syncs what SaveAsync waits for, or what BatchSync
// bounds. If it finds that done, by a Save or a Sync, or that it cannot be any more, the
// done functions are to be told of it all the same.
func (d *DiskStorage) flush() {
	ticket := d.wanted()
	if ticket == 0 {
		d.syncer.teller.Wake()
	}
	for ; ticket > 0; ticket = d.wanted() {
		_ = d.await(ticket) // an error is sticky, and told by deliver
		d.syncer.teller.Wake()
	}
}

// wanted returns the ticket up to which the flusher has to sync; 0 if it has not.
func (d *DiskStorage) wanted() (ticket uint64) {
	s := &d.syncer
	poisoned := d.poisoned() != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := d.opts.Sync.mode == hardSync && s.durable < s.asked
	if !poisoned && s.durable < s.last.Load() && (asked || s.due) {
		ticket = s.last.Load()
	}
	s.due = false
	return ticket
}

// tell is what the teller does: it calls done functions in their order.
func (d *DiskStorage) tell() {
	for d.deliver() {
	}
}

// deliver calls the done functions at the head of the queue whose Saves are durable under
// the sync policy, or failed. It reports whether there were any.
func (d *DiskStorage) deliver() bool {
	s := &d.syncer
	ended := s.ended(d.poisoned(), d.opts.Sync.mode == hardSync)
	for _, a := range ended {
		d.count.saved(a.call, a.err)
		a.done(a.err)
		s.undone.Add(-1)
	}
	s.dequeue(len(ended))
	return len(ended) > 0
}

// ended returns the Saves at the head of the queue that are durable, or failed, as all are
// that cannot be any more. They stay in the queue.
func (s *syncer) ended(poisoned error, synced bool) []async {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for ; n < len(s.queue); n++ {
		a := &s.queue[n]
		if a.err != nil || a.ticket <= s.durable || !synced {
			continue
		}
		if poisoned == nil {
			break
		}
		a.err = poisoned
	}
	return s.queue[:n]
}

// maxQueueKept is for how many SaveAsync the memory of a queue that is empty is kept.
const maxQueueKept = 1024

// dequeue removes the first n of the queue.
func (s *syncer) dequeue(n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	left := copy(s.queue, s.queue[n:])
	clear(s.queue[left:])
	s.queue = s.queue[:left]
	if left > 0 {
		return
	}
	s.failing.Store(nil)
	if cap(s.queue) > maxQueueKept {
		s.queue = nil
	}
}

// bound keeps what a power cut can take within what BatchSync says: the interval runs
// whenever something is not synced, the flusher is told to sync when half of what may be
// lost is not, and the Save waits if that is late.
func (d *DiskStorage) bound(ticket uint64) error {
	s, policy := &d.syncer, d.opts.Sync
	late := d.unsyncedBytes() > d.opts.MaxUnsyncedBytes
	s.mu.Lock()
	unsynced := s.entries - s.durableEntries
	late = late || unsynced > uint64(policy.entries)
	wake := !late && unsynced > uint64(policy.entries)/2
	s.due = s.due || wake
	open := s.durable < s.last.Load()
	s.mu.Unlock()
	if late {
		return d.await(ticket) // what is stored behind it comes here in turn
	}
	if wake {
		s.flusher.Wake()
	}
	if open {
		s.timer.Start(policy.interval)
	}
	return nil
}

// intervalOver has the flusher sync what is not synced by now.
func (d *DiskStorage) intervalOver() {
	s := &d.syncer
	s.mu.Lock()
	s.due = true
	s.mu.Unlock()
	s.flusher.Wake()
}

// unsyncedBytes returns how many bytes of records were not synced yet.
func (d *DiskStorage) unsyncedBytes() (n int64) {
	n = d.ahead.unsynced()
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.view.tail != nil {
		n += d.view.tail.Unsynced()
	}
	return n
}
