package mmapwal_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestModel runs random operations on a DiskStorage and on raft's MemoryStorage,
// and compares all that can be read after each. The environment can choose the
// runs: SEED is one seed, or else SEEDS the number of seeds; STEPS is how many
// operations each has.
func TestModel(t *testing.T) {
	steps := int(envUint(t, "STEPS", 300))
	if seed := envUint(t, "SEED", 0); seed != 0 {
		runModel(t, seed, steps)
		return
	}
	seeds := uint64(8)
	if testing.Short() {
		seeds = 3
	}
	for seed := uint64(1); seed <= envUint(t, "SEEDS", seeds); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { runModel(t, seed, steps) })
	}
}

// TestFirstEntryNeedsLargerFile: the tail is empty, as after any recovery, and
// the next entry does not fit into it, so that it is sealed empty between files
// with entries. Reads must find their way past it.
func TestFirstEntryNeedsLargerFile(t *testing.T) {
	opts := &mmapwal.Options{FileDataSize: 1 << 20, Logger: slog.New(slog.DiscardHandler)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	entry := func(i uint64, size int) []*raftpb.Entry {
		return []*raftpb.Entry{{Index: &i, Term: new(uint64(1)), Data: make([]byte, size)}}
	}
	first, dir := t.TempDir(), filepath.Join(t.TempDir(), "killed")
	old, err := mmapwal.Open(first, opts)
	must(err)
	defer old.Close()
	must(old.Save(nil, entry(1, 10), nil))
	must(copyDir(first, dir))
	d, err := mmapwal.Open(dir, opts)
	must(err)
	must(d.Save(nil, entry(2, 1<<20), nil)) // needs a larger file: the empty one is sealed
	must(d.Save(nil, entry(3, 10), nil))
	defer func() {
		if r := recover(); r != nil {
			t.Fatalf("a read panicked: %v", r)
		}
	}()
	if term, err := d.Term(1); term != 1 || err != nil {
		t.Errorf("Term(1) is %d, %v", term, err)
	}
	if es, err := d.Entries(1, 4, math.MaxUint64); len(es) != 3 || err != nil {
		t.Errorf("%d entries, %v", len(es), err)
	}
	must(d.Close())
}

func envUint(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

// machine is a log under test beside its oracle.
type machine struct {
	t     *testing.T
	seed  uint64
	steps int
	step  int
	rng   *rand.Rand
	ops   []string // what was done, for the report of a failure

	root string
	runs int // directories made so far; each kill goes on in a copy
	dir  string
	opts mmapwal.Options

	closed []byte // wal.meta as Close left it

	key []byte // nil: not encrypted yet

	disk *mmapwal.DiskStorage
	mem  *raft.MemoryStorage

	blank   map[*raftpb.Entry]bool // entries of mem whose data was cleared
	cleared uint64                 // the last clear was of entries below it

	term       uint64 // the highest used so far
	checkpoint uint64
	groupID    uint64

	// What differs from seed to seed, so that each reaches other corners.
	raiseTerm float64 // probability per operation
	confEntry float64 // probability per entry
	maxData   int     // bytes of a usual entry
}

// opWeights: how often an operation is drawn, relative to the others.
var opWeights = []struct {
	weight int
	run    func(*machine)
}{
	{30, (*machine).append},
	{10, (*machine).overwrite},
	{6, (*machine).saveHardState},
	{5, (*machine).createSnapshot},
	{2, (*machine).installBeyond},
	{3, (*machine).installMatching},
	{2, (*machine).installMismatching},
	{3, (*machine).installWithEntries},
	{1, (*machine).startGroup},
	{4, (*machine).compact},
	{5, (*machine).clear},
	{1, (*machine).appendHuge},
	{4, (*machine).reopen},
	{5, (*machine).kill},
	{6, (*machine).refused},
	{3, (*machine).saveMeta},
	{2, (*machine).rotateKey},
}

func runModel(t *testing.T, seed uint64, steps int) {
	t.Logf("SEED=%d STEPS=%d", seed, steps)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := &machine{blank: make(map[*raftpb.Entry]bool),
		t: t, seed: seed, steps: steps, rng: rng, root: t.TempDir(), term: 1,
		mem:       raft.NewMemoryStorage(),
		raiseTerm: []float64{0.05, 0.7}[rng.IntN(2)],
		confEntry: []float64{0.05, 0.5}[rng.IntN(2)],
		maxData:   []int{100, 4 << 10, 40 << 10}[rng.IntN(3)],
	}
	defer m.end()
	m.dir = m.newDir()
	m.open(true)
	bulk := rng.IntN(3 * steps) // in a third of the runs there is one
	for m.step = 1; m.step <= steps; m.step++ {
		if m.step == bulk {
			m.appendBulk()
		} else {
			m.draw()(m)
		}
		m.compare()
	}
	m.reopen()
}

// end closes the log, and turns a panic into a failure that can be replayed. It
// does not close then: a call that panicked may never be over.
func (m *machine) end() {
	if r := recover(); r != nil {
		m.fatalf("panic: %v\n%s", r, debug.Stack())
	}
	if m.disk != nil {
		_ = m.disk.Close()
	}
}

func (m *machine) draw() func(*machine) {
	total := 0
	for _, o := range opWeights {
		total += o.weight
	}
	n := m.rng.IntN(total)
	for _, o := range opWeights {
		if n -= o.weight; n < 0 {
			return o.run
		}
	}
	panic("unreachable")
}

func (m *machine) logf(format string, args ...any) {
	m.ops = append(m.ops, fmt.Sprintf("%4d ", m.step)+fmt.Sprintf(format, args...))
}

func (m *machine) fatalf(format string, args ...any) {
	m.t.Helper()
	tail := m.ops[max(0, len(m.ops)-30):]
	m.t.Fatalf("SEED=%d STEPS=%d: step %d: %s\nlast operations:\n%s",
		m.seed, m.steps, m.step, fmt.Sprintf(format, args...), strings.Join(tail, "\n"))
}

// must ends the test if an operation that has to work does not.
func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.fatalf("unexpected error: %v", err)
	}
}

// newKey returns a master key.
func (m *machine) newKey() []byte {
	key := make([]byte, []int{16, 24, 32}[m.rng.IntN(3)])
	for k := range key {
		key[k] = byte(m.rng.Uint32())
	}
	return key
}

func (m *machine) rotateKey() {
	if m.key == nil {
		return
	}
	m.logf("RotateKey")
	m.key = m.newKey()
	m.must(m.disk.RotateKey(m.key))
}

// Opening and closing.

func (m *machine) newDir() string {
	m.runs++
	return filepath.Join(m.root, fmt.Sprint("run", m.runs))
}

// open opens m.dir with options of its own, and checks what Open says it found.
func (m *machine) open(clean bool) {
	m.opts = mmapwal.Options{
		Sync:         []mmapwal.SyncPolicy{mmapwal.HardSync, mmapwal.NoSync}[m.rng.IntN(2)],
		FileDataSize: 1 << 20,
		Logger:       slog.New(slog.DiscardHandler),
	}
	if m.rng.IntN(2) == 0 {
		m.opts.RetainEntries = uint64(m.rng.IntN(60))
	}
	// A third of the seeds is encrypted, and another from the middle on.
	if m.key == nil && (m.seed%3 == 0 || m.seed%3 == 1 && m.step > m.steps/2) {
		m.key = m.newKey()
	}
	m.opts.Key = m.key
	if m.seed%4 == 2 { // as where there is no fallocate
		m.opts.SetFS(vfs.Plain())
	}
	m.logf("open sync=%v retain=%d clean=%v", m.opts.Sync, m.opts.RetainEntries, clean)
	d, err := mmapwal.Open(m.dir, &m.opts)
	m.must(err)
	m.disk = d
	m.clampCommit()
	if got := d.Stats().Recovery.Clean; got != clean {
		m.fatalf("Recovery.Clean is %v, not %v", got, clean)
	}
	if torn := d.Stats().Recovery.TornBytes; torn != 0 {
		m.fatalf("%d bytes were dropped; nothing was torn", torn)
	}
}

// clampCommit: Open puts the commit index between snapshot and last index.
func (m *machine) clampCommit() {
	h, _, _ := m.mem.InitialState()
	if h == nil {
		return
	}
	h = proto.Clone(h).(*raftpb.HardState)
	h.Commit = new(min(max(h.GetCommit(), m.snapIndex()), m.last()))
	m.must(m.mem.SetHardState(h))
}

func (m *machine) reopen() {
	m.logf("close")
	files := m.disk.Stats().Files
	m.must(m.disk.Close())
	var err error
	m.closed, err = os.ReadFile(filepath.Join(m.dir, metafile.Name))
	m.must(err)
	if _, err := m.disk.Term(m.last()); !errors.Is(err, mmapwal.ErrClosed) {
		m.fatalf("Term after Close: %v", err)
	}
	// One more may be there: that which takes entries, and has none yet.
	if names, _ := filepath.Glob(filepath.Join(m.dir, "*.wal")); len(names) > files+1 {
		m.fatalf("%d files with entries, but on disk are %v", files, names)
	}
	if m.rng.IntN(3) == 0 {
		m.readOnly(m.dir)
	}
	m.open(true)
	m.compareAll()
}

// kill goes on with a copy of what the files hold right now: that is what the
// death of the process would leave, since reads of a file see its mappings.
func (m *machine) kill() {
	m.logf("kill")
	old, oldDir := m.disk, m.dir
	m.dir = m.newDir()
	m.must(copyDir(oldDir, m.dir))
	if m.rng.IntN(3) == 0 {
		m.readOnly(m.dir)
	}
	m.open(m.untouched())
	m.compareAll()
	m.must(old.Close())
	m.must(os.RemoveAll(oldDir))
}

// untouched reports whether the log is as Close left it: nothing was stored since it was
// opened.
func (m *machine) untouched() bool {
	now, err := os.ReadFile(filepath.Join(m.dir, metafile.Name))
	m.must(err)
	return bytes.Equal(now, m.closed)
}

// readOnly compares what a reader sees that may not recover anything.
func (m *machine) readOnly(dir string) {
	before := m.disk
	h, _, _ := m.mem.InitialState()
	d, err := mmapwal.Open(dir, &mmapwal.Options{ReadOnly: true, Key: m.key, Logger: slog.New(slog.DiscardHandler)})
	m.must(err)
	m.disk = d
	m.clampCommit()
	m.compareAll()
	m.must(d.Close())
	m.disk = before
	m.must(m.mem.SetHardState(h))
}

// copyDir copies the files of a directory in which files may be vanishing.
func copyDir(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range list {
		err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}

// What the oracle holds.

func (m *machine) first() uint64 { i, _ := m.mem.FirstIndex(); return i }
func (m *machine) last() uint64  { i, _ := m.mem.LastIndex(); return i }

func (m *machine) snapIndex() uint64 {
	s, _ := m.mem.Snapshot()
	return s.GetMetadata().GetIndex()
}

func (m *machine) termOf(i uint64) uint64 {
	term, err := m.mem.Term(i)
	m.must(err)
	return term
}

// all returns the entries from lo on.
func (m *machine) all(lo uint64) []*raftpb.Entry {
	if lo > m.last() {
		return nil
	}
	es, err := m.mem.Entries(lo, m.last()+1, math.MaxUint64)
	m.must(err)
	return es
}

// between draws a number of [lo, hi].
func (m *machine) between(lo, hi uint64) uint64 { return lo + m.rng.Uint64N(hi-lo+1) }

func (m *machine) chance(p float64) bool { return m.rng.Float64() < p }

// Entries, hard states and snapshots.

// randomBytes is what data is cut from; making it anew each time costs too much.
var randomBytes = func() []byte {
	b := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}()

func (m *machine) data(n int) []byte {
	at := m.rng.IntN(len(randomBytes) - n)
	return randomBytes[at : at+n : at+n]
}

func (m *machine) entryData() []byte {
	switch m.rng.IntN(10) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return m.data(m.rng.IntN(m.maxData + 5000))
	default:
		return m.data(m.rng.IntN(m.maxData))
	}
}

// entries makes n entries from first on, whose terms do not fall.
func (m *machine) entries(first uint64, n int) []*raftpb.Entry {
	if m.chance(m.raiseTerm) {
		m.term++
	}
	term := max(m.termOf(max(first, m.first())-1), 1)
	if m.chance(0.8) {
		term = m.term
	}
	es := make([]*raftpb.Entry, n)
	for k := range es {
		if m.chance(m.raiseTerm / 10) {
			m.term++
			term = m.term
		}
		e := &raftpb.Entry{Index: new(first + uint64(k)), Term: new(term), Data: m.entryData()}
		switch {
		case m.chance(m.confEntry):
			e.Type = []raftpb.EntryType{raftpb.EntryConfChange, raftpb.EntryConfChangeV2}[m.rng.IntN(2)].Enum()
		case m.chance(0.5):
			e.Type = raftpb.EntryNormal.Enum()
		}
		es[k] = e
	}
	return es
}

// someEntries makes entries that fit the log: most often they continue it.
func (m *machine) someEntries(overwrite bool) []*raftpb.Entry {
	first := m.last() + 1
	if overwrite {
		first = m.between(m.snapIndex()+1, m.last()+1) // what the snapshot covers is committed
		if m.first() == m.snapIndex()+1 && m.first() > 2 && m.chance(0.2) {
			first = m.first() - 2 // what is compacted is ignored
		}
	}
	return m.entries(first, 1+m.rng.IntN(20))
}

// maybeHardState: most Saves carry none, or only a commit index.
func (m *machine) maybeHardState() *raftpb.HardState {
	old, _, _ := m.mem.InitialState()
	switch m.rng.IntN(4) {
	case 0:
		return nil
	case 1:
		return &raftpb.HardState{} // counts as none
	case 2:
		return &raftpb.HardState{Term: new(old.GetTerm()), Vote: new(old.GetVote()), Commit: new(m.between(0, m.last()+3))}
	default:
		return &raftpb.HardState{Term: new(m.term), Vote: new(m.rng.Uint64N(4)), Commit: new(m.between(0, m.last()))}
	}
}

func (m *machine) confState() *raftpb.ConfState {
	cs := &raftpb.ConfState{}
	for id := range uint64(5) {
		switch m.rng.IntN(4) {
		case 0, 1:
			cs.Voters = append(cs.Voters, id+1)
		case 2:
			cs.Learners = append(cs.Learners, id+1)
		}
	}
	if m.chance(0.2) {
		cs.VotersOutgoing, cs.AutoLeave = []uint64{7, 1 << 40}, new(true)
	}
	return cs
}

// snapshotData is small enough for wal.meta, or needs a file of its own.
func (m *machine) snapshotData() []byte {
	switch m.rng.IntN(5) {
	case 0:
		return nil
	case 1:
		return m.data(1900 + m.rng.IntN(200)) // around the limit
	case 2:
		return m.data(2001 + m.rng.IntN(100_000))
	default:
		return m.data(1 + m.rng.IntN(500))
	}
}

func (m *machine) snapshot(index, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data:     m.snapshotData(),
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: m.confState()},
	}
}

// Operations. Each does the same to oracle and log.

// save saves what is not nil, after the oracle has taken snapshot and entries.
func (m *machine) save(h *raftpb.HardState, es []*raftpb.Entry, snap *raftpb.Snapshot) {
	m.t.Helper()
	m.logf("Save hs=(%v) entries=%s snapshot=%s", h, describe(es), describeSnapshot(snap))
	if !raft.IsEmptyHardState(h) {
		m.must(m.mem.SetHardState(proto.Clone(h).(*raftpb.HardState)))
	}
	m.must(m.disk.Save(h, es, snap))
}

func describe(es []*raftpb.Entry) string {
	if len(es) == 0 {
		return "none"
	}
	a, b := es[0], es[len(es)-1]
	return fmt.Sprintf("%d/%d..%d/%d", a.GetIndex(), a.GetTerm(), b.GetIndex(), b.GetTerm())
}

func describeSnapshot(s *raftpb.Snapshot) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("%d/%d (%d bytes)", s.GetMetadata().GetIndex(), s.GetMetadata().GetTerm(), len(s.GetData()))
}

func (m *machine) append() {
	es := m.someEntries(false)
	m.must(m.mem.Append(es))
	m.save(m.maybeHardState(), es, nil)
}

func (m *machine) overwrite() {
	es := m.someEntries(true)
	m.must(m.mem.Append(es))
	m.save(m.maybeHardState(), es, nil)
}

// appendHuge saves an entry that needs a file of its own, among others.
func (m *machine) appendHuge() {
	es := m.someEntries(m.chance(0.3))
	es[m.rng.IntN(len(es))].Data = m.data(1<<20 + m.rng.IntN(1<<20))
	m.must(m.mem.Append(es))
	m.save(m.maybeHardState(), es, nil)
}

// appendBulk saves more entries than a file has slots for.
func (m *machine) appendBulk() {
	es := m.entries(m.last()+1, 30_000+m.rng.IntN(3000))
	for _, e := range es {
		if len(e.Data) > 8 {
			e.Data = nil
		}
	}
	m.must(m.mem.Append(es))
	m.save(m.maybeHardState(), es, nil)
}

func (m *machine) saveHardState() { m.save(m.maybeHardState(), nil, nil) }

func (m *machine) createSnapshot() {
	if m.snapIndex() >= m.last() {
		return
	}
	i := m.between(m.snapIndex()+1, m.last())
	var cs *raftpb.ConfState // nil: as before
	if m.chance(0.7) {
		cs = m.confState()
	}
	data := m.snapshotData()
	m.logf("CreateSnapshot %d (%d bytes)", i, len(data))
	_, err := m.mem.CreateSnapshot(i, cs, data)
	m.must(err)
	if retain := m.opts.RetainEntries; i > retain && i-retain >= m.first() {
		m.must(m.mem.Compact(i - retain))
	}
	m.must(m.disk.CreateSnapshot(i, cs, data))
}

// install has the oracle take a snapshot, which replaces its log.
func (m *machine) install(snap *raftpb.Snapshot) { m.must(m.mem.ApplySnapshot(snap)) }

// drawSnapshot draws a newer snapshot that is inside of the log, with the right
// term or with another one; beyond the log if there is none inside.
func (m *machine) drawSnapshot(matching bool) *raftpb.Snapshot {
	if m.snapIndex() >= m.last() {
		return m.snapshot(m.last()+m.between(1, 50), m.term)
	}
	i := m.between(m.snapIndex()+1, m.last())
	if matching {
		return m.snapshot(i, m.termOf(i))
	}
	m.term++
	return m.snapshot(i, m.term)
}

func (m *machine) installBeyond() {
	snap := m.snapshot(m.last()+m.between(1, 50), m.term)
	m.install(snap)
	m.save(m.maybeHardState(), nil, snap)
}

func (m *machine) installMatching() {
	snap := m.drawSnapshot(true)
	m.install(snap)
	m.save(m.maybeHardState(), nil, snap)
}

func (m *machine) installMismatching() {
	snap := m.drawSnapshot(false)
	m.install(snap)
	m.save(m.maybeHardState(), nil, snap)
}

// installWithEntries saves a snapshot and entries that follow or replace what
// it leaves.
func (m *machine) installWithEntries() {
	snap := m.drawSnapshot(m.chance(0.6))
	if m.chance(0.3) {
		snap = m.snapshot(m.last()+m.between(1, 50), m.term)
	}
	m.install(snap)
	es := m.someEntries(m.chance(0.5))
	m.must(m.mem.Append(es))
	m.save(m.maybeHardState(), es, snap)
}

// startGroup saves a snapshot of index 0, which sets the conf state only.
func (m *machine) startGroup() {
	if h, _, _ := m.disk.InitialState(); h != nil || m.last() > 0 {
		return
	}
	snap := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: &raftpb.ConfState{Voters: []uint64{1, m.term}}}}
	m.install(snap)
	m.save(nil, nil, snap)
}

func (m *machine) compact() {
	if m.first() > m.snapIndex() {
		return
	}
	i := m.between(m.first(), m.snapIndex())
	m.logf("Compact %d", i)
	m.must(m.mem.Compact(i))
	m.must(m.disk.Compact(i))
}

// clear has the oracle store the entries anew, the normal ones without data.
func (m *machine) clear() {
	below := m.between(m.first()-1, m.snapIndex()+1)
	m.logf("TruncateEntriesUntil %d", below)
	es := slices.Clone(m.all(m.first()))
	for k, e := range es {
		if e.GetIndex() < below && e.GetType() == raftpb.EntryNormal {
			es[k] = &raftpb.Entry{Index: e.Index, Term: e.Term}
			m.blank[es[k]] = true
		}
	}
	m.must(m.mem.Append(es))
	m.must(m.disk.TruncateEntriesUntil(below))
	m.cleared = below
}

func (m *machine) saveMeta() {
	m.logf("SetUint, Sync")
	m.checkpoint, m.groupID = m.rng.Uint64(), m.rng.Uint64()
	m.must(m.disk.SetUint(mmapwal.CheckpointIndex, m.checkpoint))
	m.must(m.disk.SetUint(mmapwal.GroupId, m.groupID))
	if m.chance(0.5) {
		m.must(m.disk.Sync())
	}
}

// refused calls what must fail and change nothing, which the comparison after
// it sees.
func (m *machine) refused() {
	m.logf("calls that must fail")
	last, snap := m.last(), m.snapIndex()
	want := func(what string, err error, targets ...error) {
		m.t.Helper()
		for _, target := range targets {
			if !errors.Is(err, target) {
				m.fatalf("%s: %v, not %v", what, err, target)
			}
		}
	}
	d := m.disk
	beyond := m.between(last+1, last+10)
	want("Compact beyond the log", d.Compact(beyond), mmapwal.ErrInvalid, raft.ErrUnavailable)
	want("CreateSnapshot beyond the log", d.CreateSnapshot(beyond, nil, nil), mmapwal.ErrInvalid, raft.ErrUnavailable)
	if snap < last {
		want("Compact beyond the snapshot", d.Compact(m.between(max(snap+1, m.first()), last)), mmapwal.ErrInvalid)
	}
	h := &raftpb.HardState{Term: new(uint64(1) << 50)}
	gap := []*raftpb.Entry{{Index: new(last + 2), Term: new(m.term)}}
	want("Save with a gap", d.Save(h, gap, nil), mmapwal.ErrInvalid)
	if term := m.termOf(last); term > 1 {
		falling := []*raftpb.Entry{{Index: new(last + 1), Term: new(term - 1)}}
		want("Save with a falling term", d.Save(h, falling, nil), mmapwal.ErrInvalid)
	}
	want("Save of a nil entry", d.Save(h, []*raftpb.Entry{nil}, nil), mmapwal.ErrInvalid)
	es := m.entries(last+1, 3)
	es[2].Index = new(last + 5)
	want("Save of entries apart", d.Save(h, es, nil), mmapwal.ErrInvalid)
	beforeLog := m.snapshot(last+10, m.term)
	want("Save of a snapshot and a gap", d.Save(h, []*raftpb.Entry{{Index: new(last + 12), Term: new(m.term)}}, beforeLog), mmapwal.ErrInvalid)
	if snap > 0 {
		old := m.snapshot(m.between(1, snap), m.term)
		if err := d.Save(h, m.entries(last+1, 2), old); !errors.Is(err, raft.ErrSnapOutOfDate) {
			m.fatalf("Save of an old snapshot: %v", err)
		}
	}
	want("CreateSnapshot again", d.CreateSnapshot(m.between(0, snap), nil, nil), raft.ErrSnapOutOfDate)
	m.sameError("Compact again", d.Compact(m.between(0, m.first()-1)), raft.ErrCompacted)
	lo := m.between(m.first(), last+1)
	if _, err := d.Entries(lo, beyond+1, 0); err != raft.ErrUnavailable {
		m.fatalf("Entries up to %d: %v, not ErrUnavailable", beyond+1, err)
	}
	if lo > m.first() && last >= m.first() {
		_, err := d.Entries(lo, lo-1, 0)
		want("Entries upside down", err, mmapwal.ErrInvalid)
	}
}

// Comparison.

// sameError compares errors as raft does, by ==.
func (m *machine) sameError(what string, got, want error) {
	m.t.Helper()
	if got != want {
		m.fatalf("%s: error %v, not %v", what, got, want)
	}
}

// compare compares all that is cheap, and samples of the rest.
func (m *machine) compare() {
	m.t.Helper()
	m.compareBounds()
	m.compareState()
	first, last := m.first(), m.last()
	for _, i := range []uint64{0, first - 1, first, last, last + 1, last + 100, math.MaxInt} {
		m.compareTerm(i)
	}
	if first > 1 {
		m.compareTerm(m.between(0, first-2+1))
		m.compareEntries(m.between(0, first-1), last+1)
	}
	for range 20 {
		m.compareTerm(m.between(first-1, last+1))
	}
	for range 3 {
		lo := m.between(first, last+1)
		m.compareEntries(lo, min(m.between(lo, last+1), lo+64))
	}
	m.compareEntries(max(first, last-min(last, 20)), last+1)
	if c := m.cleared; c > first && c <= last {
		m.compareRange(c-1, c, math.MaxUint64) // the last that was cleared, and the first that was not
		m.compareRange(c, c+1, math.MaxUint64)
	}
	if m.step%16 == 0 {
		m.compareAll()
	}
}

// compareAll compares everything.
func (m *machine) compareAll() {
	m.t.Helper()
	m.compareBounds()
	m.compareState()
	for i := m.first() - 1; i <= m.last()+1; i++ {
		m.compareTerm(i)
	}
	m.compareRange(m.first(), m.last()+1, math.MaxUint64)
}

func (m *machine) compareBounds() {
	m.t.Helper()
	first, err := m.disk.FirstIndex()
	m.must(err)
	last, err := m.disk.LastIndex()
	m.must(err)
	if first != m.first() || last != m.last() {
		m.fatalf("the log is [%d, %d], not [%d, %d]", first, last, m.first(), m.last())
	}
	if n := m.disk.NumEntries(); n != int(last+1-first) {
		m.fatalf("NumEntries is %d, but the log is [%d, %d]", n, first, last)
	}
}

func (m *machine) compareState() {
	m.t.Helper()
	wantState, wantConf, _ := m.mem.InitialState()
	state, conf, err := m.disk.InitialState()
	m.must(err)
	if (state == nil) != (wantState == nil) || !proto.Equal(state, wantState) || !proto.Equal(conf, wantConf) {
		m.fatalf("InitialState is (%v, %v), not (%v, %v)", state, conf, wantState, wantConf)
	}
	hard, err := m.disk.HardState()
	m.must(err)
	if wantState == nil {
		wantState = &raftpb.HardState{}
	}
	if !proto.Equal(hard, wantState) {
		m.fatalf("HardState is %v, not %v", hard, wantState)
	}
	want, _ := m.mem.Snapshot()
	snap, err := m.disk.Snapshot()
	m.must(err)
	if !proto.Equal(snap, want) {
		m.fatalf("Snapshot is %s of %v, not %s of %v", describeSnapshot(snap), snap.GetMetadata(), describeSnapshot(want), want.GetMetadata())
	}
	if c, g := m.disk.Uint(mmapwal.CheckpointIndex), m.disk.Uint(mmapwal.GroupId); c != m.checkpoint || g != m.groupID {
		m.fatalf("checkpoint and group are %d and %d, not %d and %d", c, g, m.checkpoint, m.groupID)
	}
}

func (m *machine) compareTerm(i uint64) {
	m.t.Helper()
	want, wantErr := m.mem.Term(i)
	got, err := m.disk.Term(i)
	m.sameError(fmt.Sprintf("Term(%d)", i), err, wantErr)
	if got != want {
		m.fatalf("Term(%d) is %d, not %d", i, got, want)
	}
}

func (m *machine) compareEntries(lo, hi uint64) {
	m.t.Helper()
	sizes := []uint64{0, 1, 40, 300, 10_000, 1 << 20, math.MaxUint64}
	m.compareRange(lo, hi, sizes[m.rng.IntN(len(sizes))])
}

func (m *machine) compareRange(lo, hi, maxSize uint64) {
	m.t.Helper()
	what := fmt.Sprintf("Entries(%d, %d, %d)", lo, hi, maxSize)
	want, wantErr := m.mem.Entries(lo, hi, maxSize)
	if wantErr == nil && m.reachesBlank(lo, hi, len(want)) {
		want, wantErr = nil, raft.ErrCompacted
	}
	got, err := m.disk.Entries(lo, hi, maxSize)
	m.sameError(what, err, wantErr)
	if len(got) != len(want) {
		m.fatalf("%s: %d entries, not %d", what, len(got), len(want))
	}
	for k := range want {
		if !sameEntry(got[k], want[k]) || k < 8 && !proto.Equal(got[k], want[k]) {
			m.fatalf("%s: number %d is %s, not %s", what, k, describeEntry(got[k]), describeEntry(want[k]))
		}
	}
}

// reachesBlank reports whether one of the first n + 1 entries of [lo, hi), if there are so many, was
// cleared: n of them fit into a read.
func (m *machine) reachesBlank(lo, hi uint64, n int) bool {
	es, err := m.mem.Entries(lo, min(hi, lo+uint64(n)+1), math.MaxUint64)
	return err == nil && slices.ContainsFunc(es, func(e *raftpb.Entry) bool { return m.blank[e] })
}

// sameEntry is proto.Equal, but fast.
func sameEntry(a, b *raftpb.Entry) bool {
	return a.GetIndex() == b.GetIndex() && a.GetTerm() == b.GetTerm() && a.GetType() == b.GetType() &&
		(a.Type == nil) == (b.Type == nil) && (a.Data == nil) == (b.Data == nil) && bytes.Equal(a.Data, b.Data)
}

func describeEntry(e *raftpb.Entry) string {
	return fmt.Sprintf("%d/%d type %v (set: %v), %d bytes (nil: %v)",
		e.GetIndex(), e.GetTerm(), e.GetType(), e.Type != nil, len(e.Data), e.Data == nil)
}
