package histories

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

const logDir = "/log"

// Program is a history: the options of the first run, and the calls.
type Program struct {
	Open  Settings
	Plain bool // the file system cannot allocate blocks, nor give them back
	Calls []Call
}

func (p Program) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "Open %v\n", p.Open)
	if p.Plain {
		out.WriteString("on a file system without fallocate\n")
	}
	for _, c := range p.Calls {
		fmt.Fprintf(&out, "%v\n", c)
	}
	return out.String()
}

// Failure is a history in which something did not agree.
type Failure struct {
	Program Program // up to the call that failed
	Reason  string
}

func (f *Failure) Error() string { return fmt.Sprintf("%s\nafter\n%v", f.Reason, f.Program) }

// Count is what was looked at.
type Count struct{ Histories, Calls, Runs, Cuts, Kills, Failures, Images, Readers, Inspections, Backups, Repairs int }

// Add adds another one.
func (c *Count) Add(other Count) {
	c.Histories += other.Histories
	c.Calls += other.Calls
	c.Runs += other.Runs
	c.Cuts += other.Cuts
	c.Kills += other.Kills
	c.Failures += other.Failures
	c.Images += other.Images
	c.Readers += other.Readers
	c.Inspections += other.Inspections
	c.Backups += other.Backups
	c.Repairs += other.Repairs
}

func (c Count) String() string {
	return fmt.Sprintf("%d histories, %d calls, %d runs, %d power cuts and %d kills gone on with, %d calls that failed once, %d images opened, %d readers, %d inspections, %d backups restored, %d repairs",
		c.Histories, c.Calls, c.Runs, c.Cuts, c.Kills, c.Failures, c.Images, c.Readers, c.Inspections, c.Backups, c.Repairs)
}

// background is what the engine does in the background, done when the history wants it.
type background struct {
	queue  []func()
	atOnce bool
}

func (b *background) add(f func()) {
	if b.atOnce {
		f()
		return
	}
	b.queue = append(b.queue, f)
}

// later takes all times for the next turn.
func (b *background) later(_ time.Duration, f func()) { b.queue = append(b.queue, f) }

func (b *background) run() {
	queue := b.queue
	b.queue = nil
	for _, f := range queue {
		f()
	}
}

// runAll is run with all that it leads to.
func (b *background) runAll() {
	for b.run(); len(b.queue) > 0; {
		b.run()
	}
}

// end is for a log that is going to be closed, which may wait for it.
func (b *background) end() {
	b.atOnce = true
	b.run()
}

// machine runs a history.
type machine struct {
	disk  *simdisk.FS
	d     *mmapwal.DiskStorage // nil: the power is gone
	b     *background
	run   Settings
	opens uint64
	dirs  func() string // of the real file system; a new one each time

	state *State
	want  expectation
	data  stuff
	count Count

	saved map[Position]Entry // all entries that ever were

	full     []byte // a backup, and what it holds
	manifest mmapwal.Manifest
}

// newMachine makes a log. dirs returns a new directory of the real file system.
func newMachine(p *Program, dirs func() string) (*machine, error) {
	m := &machine{disk: simdisk.New(), run: p.Open, dirs: dirs, state: new(State), data: make(stuff), saved: make(map[Position]Entry)}
	if p.Plain {
		m.disk.Plain()
	}
	m.want = exactly(m.state)
	m.count.Histories++
	if err := m.disk.MkdirAll(logDir); err != nil {
		return nil, err
	}
	return m, m.open(AtOnce)
}

// openOn opens the log on a disk. Equal seeds give equal ids and salts.
func openOn(disk *simdisk.FS, seed uint64, atOnce bool, o *mmapwal.Options) (*mmapwal.DiskStorage, *background, error) {
	b := &background{atOnce: atOnce}
	var random [32]byte
	binary.BigEndian.PutUint64(random[:], seed)
	o.Logger = slog.New(slog.DiscardHandler)
	h := host.Host{FS: disk, Random: rand.NewChaCha8(random), Go: b.add, After: b.later, MinFileData: minFileBytes}
	d, err := mmapwal.OpenOn(h, logDir, o)
	return d, b, err
}

// open begins a run of the log, and finds what is expected.
func (m *machine) open(turn Turn) error {
	m.opens++
	m.count.Runs++
	d, b, err := openOn(m.disk, m.opens, turn == AtOnce, m.run.options(new(mmapwal.Options)))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	m.d, m.b = d, b
	if m.state, err = m.expected(d, m.want); err != nil {
		return fmt.Errorf("opened: %w", err)
	}
	m.want = exactly(m.state)
	return nil
}

// expected returns the state that a log holds.
func (m *machine) expected(d *mmapwal.DiskStorage, want expectation) (*State, error) {
	got, err := read(d)
	if err != nil {
		return nil, err
	}
	s, err := want.match(got)
	if err != nil {
		return nil, err
	}
	return s, holdsData(d, s, m.data, rand.New(rand.NewPCG(m.opens, 3)))
}

// do makes a call, and looks at what it leads to.
func (m *machine) do(c *Call) error {
	m.count.Calls++
	m.b.atOnce = c.Turn == AtOnce
	if c.Step > 0 {
		m.disk.CutAt(c.Step)
	}
	if c.Fail != NoFailure && !m.run.Async {
		m.b.end() // a Save that finds no space waits for it
		m.disk.SetHook(c.Fail.hook)
	}
	outcomes := c.outcomes(m.state, m.run.Retain)
	before := m.want
	m.want = before.begun(c, outcomes)
	err := m.call(c)
	if c.Fail != NoFailure && err != nil {
		err = m.failed(c, err)
	}
	if err != nil && !(c.Step > 0 && errors.Is(err, simdisk.ErrCut) && !errors.Is(err, mmapwal.ErrCorrupt)) {
		return fmt.Errorf("%v: %w", c, err)
	}
	m.disk.SetHook(nil)
	if err == nil {
		m.returned(c, before, outcomes)
		if m.d != nil && c.Turn != Later {
			m.settle()
		}
	}
	if err := m.begin(c); err != nil {
		return err
	}
	if err := holds(m.d, m.state, m.data, rand.New(rand.NewPCG(c.Seed, 1))); err != nil {
		return fmt.Errorf("after the call %w", err)
	}
	return m.look(c)
}

// failed: a call for which there was no descriptor, or no space, says so, and changes nothing.
// Then it is possible.
func (m *machine) failed(c *Call, err error) error {
	m.disk.SetHook(nil)
	if !errors.Is(err, [...]error{nil, syscall.EMFILE, mmapwal.ErrNoSpace}[c.Fail]) || errors.Is(err, mmapwal.ErrPoisoned) {
		return err
	}
	m.count.Failures++
	if err := holds(m.d, m.state, m.data, rand.New(rand.NewPCG(c.Seed, 7))); err != nil {
		return fmt.Errorf("after it failed %w", err)
	}
	return m.call(c)
}

// hook is that of a disk on which operations fail so.
func (f Fail) hook(op simdisk.Op, _ string) error {
	switch {
	case f == NoDescriptors && op == simdisk.OpCreate:
		return syscall.EMFILE
	case f == NoSpace && (op == simdisk.OpCreate || op == simdisk.OpReserve):
		return syscall.ENOSPC
	}
	return nil
}

// settle does what is to be done in the background, times that are over included.
func (m *machine) settle() {
	m.b.runAll()
	if m.run.Policy == BatchSync && !m.disk.IsCut() {
		m.want = expectation{[]*State{m.state}, m.want.notes}
	}
}

// returned notes what is durable, now that a call has returned.
func (m *machine) returned(c *Call, before expectation, outcomes []*State) {
	m.state = outcomes[len(outcomes)-1]
	if m.want = before.done(c, outcomes, m.want, m.run); m.acknowledged(c) {
		m.want = expectation{[]*State{m.state}, m.want.notes}
	}
}

// acknowledged reports whether the SaveAsync that a call was is done by now.
func (m *machine) acknowledged(c *Call) bool {
	return c.Kind == Save && m.run.Policy == HardSync && m.run.Async && m.d.Stats().PendingSaves == 0
}

// call makes a call, up to its return.
func (m *machine) call(c *Call) error {
	switch c.Kind {
	case Save:
		return m.save(c)
	case Create:
		return m.d.CreateSnapshot(c.At, confState(), m.data.snapshotData(Position{c.At, m.state.Term(c.At)}, c.SnapBytes))
	case Compact:
		return m.d.Compact(c.At)
	case Truncate:
		return m.d.TruncateEntriesUntil(c.At)
	case Checkpoint:
		return m.d.SetUint(mmapwal.CheckpointIndex, c.At)
	case Sync:
		return m.d.Sync()
	case Reopen:
		m.b.end()
		d := m.d
		m.d = nil
		return d.Close()
	}
	return nil
}

func (m *machine) entries(c *Call) (es []*raftpb.Entry) {
	for k, e := range c.Entries {
		m.saved[Position{c.From + uint64(k), e.Term}] = e
		es = append(es, m.data.entry(c.From+uint64(k), e))
	}
	return es
}

func (m *machine) save(c *Call) error {
	es := m.entries(c)
	var snap *raftpb.Snapshot
	if c.Snap != (Position{}) {
		snap = m.data.snapshot(c.Snap, c.SnapBytes)
	}
	if !m.run.Async {
		return m.d.Save(c.Hard.proto(), es, snap)
	}
	var err error
	m.d.SaveAsync(c.Hard.proto(), es, snap, func(e error) { err = e })
	if m.disk.IsCut() {
		m.b.runAll() // what has become of it
	}
	return err
}

// begin begins the run that a call begins, if it does.
func (m *machine) begin(c *Call) error {
	if !c.begins() {
		return nil
	}
	durable, killed := m.want, m.killed()
	m.abandon()
	encrypted := m.run.Encrypted // for ever
	m.run = c.Open
	m.run.Encrypted = m.run.Encrypted || encrypted
	switch {
	case c.Step > 0 || c.Kind == Cut:
		m.count.Cuts++
		m.crash(c.Seed)
	case c.Kind == Kill:
		m.count.Kills++
		m.disk.Restart()
		m.want = killed
	}
	if c.OpenStep > 0 {
		m.disk.CutAt(c.OpenStep)
		if err := m.open(c.Turn); err != nil {
			if !errors.Is(err, simdisk.ErrCut) || errors.Is(err, mmapwal.ErrCorrupt) {
				return err
			}
			m.want = durable
		}
		m.count.Cuts++
		m.abandon()
		m.crash(c.Seed + 1)
	}
	return m.open(c.Turn)
}

// crash is a power cut.
func (m *machine) crash(seed uint64) {
	image := m.disk.Crash(rand.New(rand.NewPCG(seed, 2)))
	m.disk.Free()
	m.disk = image
}

// killed is what the death of the process leaves: all, but for a commit index that waits
// for its entries.
func (m *machine) killed() expectation {
	if m.run.Policy == BatchSync || m.run.Async {
		return expectation{[]*State{m.state}, m.want.notes}
	}
	return exactly(m.state)
}

// abandon leaves the log as the end of the process does.
func (m *machine) abandon() {
	if m.d != nil {
		m.disk.CutAt(1)
		m.b.end()
		_ = m.d.Close()
		m.d = nil
	}
}

// end gives the memory back.
func (m *machine) end() {
	m.abandon()
	m.disk.Free()
}
