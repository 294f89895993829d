package fuzz

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/damage"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// calls decodes input to calls of a log, valid ones and others, and knows what
// each must do.
type calls struct {
	t     *testing.T
	input []byte
	disk  *damage.Disk
	opts  *mmapwal.Options
	d     *mmapwal.DiskStorage
	want  *damage.State
	trace []string
}

func (c *calls) next() (b int) {
	if len(c.input) > 0 {
		b, c.input = int(c.input[0]), c.input[1:]
	}
	return b
}

// near returns an index: near i mostly, any by way of exception.
func (c *calls) near(i uint64) uint64 {
	switch b := c.next(); {
	case b == 255:
		return math.MaxUint64
	case b == 254:
		return 1 << 40
	case b >= 128:
		return i - min(i, uint64(b-128)%40)
	default:
		return i + uint64(b)%8
	}
}

func (c *calls) fail(format string, args ...any) {
	c.t.Helper()
	trace := ""
	for _, line := range c.trace {
		trace += "\n" + line
	}
	c.t.Fatalf("%s\ncalls:%s", fmt.Sprintf(format, args...), trace)
}

func (c *calls) tell(format string, args ...any) {
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
}

// expect fails unless err is want; nil wants none.
func (c *calls) expect(err, want error) {
	c.t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		c.fail("error %v, want %v", err, want)
	}
}

// open opens the log, which puts the commit index inside of it.
func (c *calls) open() {
	d, err := damage.Open(c.disk, byte(c.next()), c.opts)
	if err != nil {
		c.fail("open: %v", err)
	}
	c.d = d
	if c.want.Hard != [3]uint64{} {
		c.want.Hard[2] = min(max(c.want.Hard[2], c.want.Snap[0]), c.want.Last())
	}
}

func (c *calls) check() {
	c.t.Helper()
	r, err := damage.Read(c.d)
	if err != nil {
		c.fail("read: %v", err)
	}
	if wrong := r.Wrong(c.want); wrong != "" || len(r.Errs) > 0 || r.Last() != c.want.Last() || r.Hard != c.want.Hard || r.Noted != c.want.Noted {
		c.fail("%s; errors %v; entries %d to %d, want %d to %d; hard state %v, want %v; checkpoint %d, want %d", wrong, r.Errs,
			r.Base[0]+1, r.Last(), c.want.Base[0]+1, c.want.Last(), r.Hard, c.want.Hard, r.Noted, c.want.Noted)
	}
}

// step makes one call.
func (c *calls) step() {
	switch c.next() % 16 {
	default:
		c.save()
	case 5:
		c.create()
	case 6:
		c.compact()
	case 7:
		i := c.near(c.want.Last())
		c.tell("clear %d", i)
		err := c.d.TruncateEntriesUntil(i)
		if i > c.want.Snap[0]+1 {
			c.expect(err, mmapwal.ErrInvalid)
			break
		}
		c.expect(err, nil)
		c.want.Clear(i)
	case 8:
		c.set()
	case 9:
		c.tell("close")
		c.expect(c.d.Close(), nil)
		c.closed()
		c.open()
	case 10:
		c.tell("kill")
		c.disk.Restart()
		c.open()
	case 11:
		c.entries()
	case 12:
		c.others()
	case 13:
		c.tell("sync")
		c.expect(c.d.Sync(), nil)
	}
}

// save decodes a Save, mostly a valid one.
func (c *calls) save() {
	snap := c.snapshot()
	last := c.want.Last()
	if snap != nil {
		last = max(last, snap.GetMetadata().GetIndex())
	}
	var es []*raftpb.Entry
	i, term := c.near(last+1), max(c.lastTerm(snap), 1)
	for range c.next() % 6 {
		shape := c.next()
		term += uint64(shape % 4 / 3)
		es = append(es, c.entry(i, term, shape))
		i++
	}
	var h *raftpb.HardState
	if b := c.next(); b%4 > 0 {
		h = &raftpb.HardState{Term: new(term + uint64(b/4%3)), Vote: new(uint64(b / 32 % 3)), Commit: new(c.near(last))}
	}
	c.tell("save %v, %d entries %s, snapshot %d", h, len(es), ends(es), snap.GetMetadata().GetIndex())
	next := c.want.Clone()
	want := saved(next, es, snap)
	c.expect(c.d.Save(h, es, snap), want)
	if want == nil {
		c.want = next
		if !raft.IsEmptyHardState(h) {
			c.want.Hard = [3]uint64{h.GetTerm(), h.GetVote(), h.GetCommit()}
		}
	}
}

func (c *calls) lastTerm(snap *raftpb.Snapshot) uint64 {
	return max(c.want.Term(c.want.Last()), snap.GetMetadata().GetTerm())
}

func ends(es []*raftpb.Entry) string {
	if len(es) == 0 {
		return ""
	}
	return fmt.Sprintf("from %d of term %d", es[0].GetIndex(), es[0].GetTerm())
}

// entry makes an entry, of which a few shapes are not valid.
func (c *calls) entry(i, term uint64, shape int) *raftpb.Entry {
	e := &raftpb.Entry{Index: &i, Term: &term}
	switch shape {
	case 255:
		return nil
	case 254:
		*e.Index += 2
	case 253:
		*e.Term = 0
	case 252:
		*e.Term -= min(*e.Term, 2)
	case 251:
		e.Type = new(raftpb.EntryType(-1))
	case 250:
		e.Type = new(raftpb.EntryType(256))
	case 249:
		*e.Index = 0
	case 248:
		e.Data = oracle.Data(i, term, 700_000) // files fill
		return e
	}
	if shape&4 > 0 {
		e.Data = oracle.Data(i, term, shape)
	}
	if shape&24 == 24 {
		e.Type = new(raftpb.EntryConfChange)
	}
	return e
}

func (c *calls) snapshot() *raftpb.Snapshot {
	b := c.next()
	if b%8 != 7 {
		return nil
	}
	i, term := c.near(c.want.Last()), c.lastTerm(nil)+uint64(b/8%2)
	if i == 0 {
		return nil
	}
	if i > c.want.Base[0] && i <= c.want.Last() && b/16%2 == 0 {
		term = c.want.Term(i)
	}
	return oracle.Snapshot(i, max(term, 1))
}

// saved changes s as a Save does, or says why the Save is refused.
func saved(s *damage.State, es []*raftpb.Entry, snap *raftpb.Snapshot) error {
	if snap != nil {
		if err := installed(s, snap); err != nil {
			return err
		}
	}
	for k, e := range es {
		if e == nil || e.GetIndex() == 0 || e.GetIndex() == math.MaxUint64 || e.GetTerm() == 0 || e.GetType() < 0 || e.GetType() > 255 ||
			k > 0 && (e.GetIndex() != es[k-1].GetIndex()+1 || e.GetTerm() < es[k-1].GetTerm()) {
			return mmapwal.ErrInvalid
		}
	}
	if len(es) > 0 && es[0].GetIndex() > s.Last()+1 {
		return mmapwal.ErrInvalid
	}
	es = slices.DeleteFunc(slices.Clone(es), func(e *raftpb.Entry) bool { return e.GetIndex() <= s.Base[0] })
	if len(es) == 0 {
		return nil
	}
	if es[0].GetTerm() < s.Term(es[0].GetIndex()-1) {
		return mmapwal.ErrInvalid
	}
	if snap == nil && !leadsTo(es, s.Snap) {
		return mmapwal.ErrInvalid
	}
	s.Save(es)
	return nil
}

// leadsTo reports whether entries leave the one at the snapshot, of index and term,
// as it is.
func leadsTo(es []*raftpb.Entry, snap [2]uint64) bool {
	first, last := es[0].GetIndex(), es[len(es)-1].GetIndex()
	return first > snap[0] || last >= snap[0] && es[snap[0]-first].GetTerm() == snap[1]
}

// installed changes s as a snapshot from another node does.
func installed(s *damage.State, snap *raftpb.Snapshot) error {
	m := snap.GetMetadata()
	i, term := m.GetIndex(), m.GetTerm()
	switch {
	case i == math.MaxUint64:
		return mmapwal.ErrInvalid
	case i <= s.Snap[0]:
		return raft.ErrSnapOutOfDate
	}
	s.Base, s.Entries = [2]uint64{i, term}, nil
	s.Snap, s.Voters, s.SnapData = s.Base, m.GetConfState().GetVoters(), snap.GetData()
	return nil
}

// create makes a snapshot of the log's own.
func (c *calls) create() {
	i := c.near(c.want.Last())
	data := oracle.SnapshotData(i, 1)
	voters := []uint64{1, uint64(c.next())}
	c.tell("create snapshot %d", i)
	err := c.d.CreateSnapshot(i, &raftpb.ConfState{Voters: voters}, data)
	switch {
	case i <= c.want.Snap[0]:
		c.expect(err, raft.ErrSnapOutOfDate)
	case i > c.want.Last():
		c.expect(err, mmapwal.ErrInvalid)
	default:
		c.expect(err, nil)
		c.want.Snap, c.want.Voters, c.want.SnapData = [2]uint64{i, c.want.Term(i)}, voters, data
		if retain := c.opts.RetainEntries; i > retain && i-retain > c.want.Base[0] {
			c.want.Compact(i - retain)
		}
	}
}

func (c *calls) compact() {
	i := c.near(c.want.Snap[0])
	c.tell("compact %d", i)
	err := c.d.Compact(i)
	switch {
	case i <= c.want.Base[0]:
		c.expect(err, raft.ErrCompacted)
	case i > c.want.Last():
		c.expect(err, raft.ErrUnavailable)
	case i > c.want.Snap[0]:
		c.expect(err, mmapwal.ErrInvalid)
	default:
		c.expect(err, nil)
		c.want.Compact(i)
	}
}

// cleared reports whether one of the entries [lo, hi) is.
func (c *calls) cleared(lo, hi uint64) bool {
	for ; lo < hi; lo++ {
		if c.want.Cleared(lo) {
			return true
		}
	}
	return false
}

func (c *calls) set() {
	info, v := mmapwal.MetaInfo(c.next()%8-1), uint64(c.next())
	c.tell("set %v to %d", info, v)
	err := c.d.SetUint(info, v)
	switch info {
	case mmapwal.RaftId, mmapwal.GroupId:
		c.expect(err, nil)
		c.want.IDs[info] = v
	case mmapwal.CheckpointIndex:
		c.expect(err, nil)
		c.want.Noted = v
	default:
		c.expect(err, mmapwal.ErrInvalid)
	}
}

// entries reads any range, with any limit.
func (c *calls) entries() {
	lo, hi := c.near(c.want.Base[0]+1), c.near(c.want.Last()+1)
	limit := uint64(c.next()) * 4
	c.tell("entries %d to %d up to %d", lo, hi, limit)
	es, err := c.d.Entries(lo, hi, limit)
	switch {
	case lo <= c.want.Base[0]:
		c.expect(err, raft.ErrCompacted)
	case hi > c.want.Last()+1, len(c.want.Entries) == 0:
		c.expect(err, raft.ErrUnavailable)
	case lo > hi:
		c.expect(err, mmapwal.ErrInvalid)
	case err == raft.ErrCompacted:
		if !c.cleared(lo, hi) {
			c.fail("entries %d to %d: %v, but none is cleared", lo, hi, err)
		}
	case c.cleared(lo, min(hi, lo+uint64(len(es))+1)):
		c.fail("%d entries of %d to %d, though one is cleared", len(es), lo, hi)
	default:
		c.expect(err, nil)
		if lo < hi && len(es) == 0 {
			c.fail("no entries of %d to %d", lo, hi)
		}
		for k, e := range es {
			if !damage.SameEntry(e, c.want.Entry(lo+uint64(k))) {
				c.fail("entry %v, want %v", e, c.want.Entry(lo+uint64(k)))
			}
		}
	}
	i := c.near(c.want.Last())
	term, err := c.d.Term(i)
	switch {
	case i < c.want.Base[0]:
		c.expect(err, raft.ErrCompacted)
	case i > c.want.Last():
		c.expect(err, raft.ErrUnavailable)
	case term != c.want.Term(i):
		c.fail("term %d of entry %d, want %d", term, i, c.want.Term(i))
	}
}

// others opens the log beside its owner.
func (c *calls) others() {
	c.tell("others")
	_, err := damage.Open(c.disk, 1, c.opts)
	c.expect(err, mmapwal.ErrLocked)
	opts := *c.opts
	opts.ReadOnly = true
	d, err := damage.Open(c.disk, 1, &opts)
	if err != nil {
		c.fail("read only: %v", err)
	}
	owner, hard := c.d, c.want.Hard
	c.d = d
	if c.want.Hard != [3]uint64{} {
		c.want.Hard[2] = min(max(hard[2], c.want.Snap[0]), c.want.Last())
	}
	c.check()
	c.expect(d.Save(nil, nil, nil), mmapwal.ErrReadOnly)
	c.expect(d.Close(), nil)
	c.d, c.want.Hard = owner, hard
}

// closed: nothing works on a closed log.
func (c *calls) closed() {
	_, err := c.d.Entries(1, 2, 3)
	c.expect(err, mmapwal.ErrClosed)
	c.expect(c.d.Save(nil, nil, nil), mmapwal.ErrClosed)
	c.expect(c.d.Close(), nil)
}

// FuzzOperations: calls with any arguments do what they promise, or are refused
// and change nothing; and what they did is there when the log is opened again.
func FuzzOperations(f *testing.F) {
	save := []byte{0, 0, 0, 3, 4, 28, 0, 1, 0} // no snapshot, the next index, entries, a hard state
	f.Add(byte(0), save)
	f.Add(byte(1), slices.Concat(save, save, []byte{9, 0}, save, []byte{10, 0, 7, 129}, save, []byte{12}))
	f.Add(byte(4), slices.Concat(save, save, []byte{5, 130, 3, 6, 129, 8, 3, 9}, save, []byte{11, 1, 129, 200, 130, 9, 1}))
	f.Add(byte(2), slices.Concat(save, []byte{0, 0, 130, 2, 4, 3, 2, 0, 0, 7, 2, 0, 0, 10, 1}, save))
	f.Add(byte(3), []byte{0, 0, 0, 3, 248, 248, 12, 1, 0, 0, 0, 0, 2, 255, 4, 0, 9, 2, 7, 1, 11})
	disk := damage.NewDisk(damage.Dir)
	f.Fuzz(func(t *testing.T, options byte, input []byte) {
		if len(input) > 400 {
			return
		}
		disk.Load(nil)
		c := &calls{t: t, input: input, disk: disk, opts: damage.Options(), want: new(damage.State)}
		c.opts.RetainEntries = uint64(options / 2 % 8)
		if options%2 == 1 {
			c.opts.Sync = mmapwal.NoSync
		}
		c.open()
		for len(c.input) > 0 {
			c.step()
			c.check()
		}
		c.expect(c.d.Close(), nil)
		c.open()
		c.check()
		c.expect(c.d.Close(), nil)
	})
}
