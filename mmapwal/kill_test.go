package mmapwal_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// testLogModel is what a log should hold. Data is a function of index and term,
// so a model can be read back from a log.
type testLogModel struct {
	hard       [3]uint64 // term, vote, commit
	snap       [2]uint64 // index, term
	base       [2]uint64 // index, term; entries up to it are compacted
	terms      []uint64  // of the entries behind base
	checkpoint uint64
	cleared    uint64 // entries below it have no data
	retain     uint64 // Options.RetainEntries
	data       func(i, term uint64) []byte
}

func (m *testLogModel) last() uint64 { return m.base[0] + uint64(len(m.terms)) }

// compact drops the entries up to i.
func (m *testLogModel) compact(i uint64) {
	if i > m.base[0] {
		term := m.term(i)
		m.terms = m.terms[i-m.base[0]:]
		m.base = [2]uint64{i, term}
	}
}

func (m *testLogModel) clone() *testLogModel {
	c := *m
	c.terms = slices.Clone(m.terms)
	return &c
}

func (m *testLogModel) term(i uint64) uint64 {
	if i == m.base[0] {
		return m.base[1]
	}
	return m.terms[i-m.base[0]-1]
}

// testLogKillData is the data of an entry: some large, most small.
func testLogKillData(i, term uint64) []byte {
	size := int((i*7919 + term*104729) % 300)
	if (i+term)%11 == 0 {
		size += 90_000
	}
	return testLogData(i, term, size)
}

func testLogKillSnapshot(i, term uint64) []byte {
	return testLogData(i, term, int(i%2*4000))
}

func (m *testLogModel) String() string {
	var out strings.Builder
	fmt.Fprintf(&out, "ids 0 0 %d\n", m.checkpoint)
	h := testLogHard(m.hard[0], m.hard[1], m.hard[2])
	snap := &raftpb.Snapshot{}
	if m.snap[0] > 0 {
		snap = testLogSnapshot(m.snap[0], m.snap[1], testLogKillSnapshot(m.snap[0], m.snap[1]))
	}
	testLogDescribeState(&out, h, snap.GetMetadata().GetConfState(), snap)
	fmt.Fprintf(&out, "entries %d to %d behind term %d\n", m.base[0]+1, m.last(), m.base[1])
	for k, term := range m.terms {
		i := m.base[0] + 1 + uint64(k)
		e := &raftpb.Entry{Index: &i, Term: &term}
		if i >= m.cleared {
			e.Data = m.data(i, term)
		}
		testLogDescribeEntries(&out, []*raftpb.Entry{e})
	}
	return out.String()
}

// testLogModelOf reads the model back from a log.
func testLogModelOf(t *testing.T, d *mmapwal.DiskStorage) *testLogModel {
	t.Helper()
	m := &testLogModel{checkpoint: d.Uint(mmapwal.CheckpointIndex), data: testLogKillData}
	m.snap = [2]uint64{d.Uint(mmapwal.SnapshotIndex), d.Uint(mmapwal.SnapshotTerm)}
	m.base = m.snap
	h, _, err := d.InitialState()
	if err != nil {
		t.Fatal(err)
	}
	m.hard = [3]uint64{h.GetTerm(), h.GetVote(), h.GetCommit()}
	last, _ := d.LastIndex()
	for i := m.base[0] + 1; i <= last; i++ {
		term, err := d.Term(i)
		if err != nil {
			t.Fatal(err)
		}
		m.terms = append(m.terms, term)
	}
	return m
}

// testLogOp is one call of the child process.
type testLogOp struct {
	hard  [3]uint64
	from  uint64   // first entry
	terms []uint64 // of the entries
	snap  [2]uint64

	// Instead of a Save, one of these:
	create     uint64 // CreateSnapshot
	checkpoint uint64 // SetUint
	compact    uint64 // Compact
	truncate   uint64 // TruncateEntriesUntil
}

// testLogNextOp picks a call as raft would make it.
func testLogNextOp(r *rand.Rand, m *testLogModel) testLogOp {
	op := testLogOp{hard: m.hard}
	commit, last := m.hard[2], m.last()
	term := max(m.hard[0], m.term(last)) // entries may have come back without their hard state
	op.hard[0] = term
	switch {
	case r.IntN(12) == 0 && commit > m.snap[0]:
		op.create = m.snap[0] + 1 + r.Uint64N(commit-m.snap[0])
		return op
	case r.IntN(12) == 0:
		op.checkpoint = m.checkpoint + 1
		return op
	case r.IntN(25) == 0:
		op.snap = [2]uint64{last + 1 + r.Uint64N(5), term + 1}
		op.hard = [3]uint64{term + 1, 1, op.snap[0]}
		op.from = op.snap[0] + 1
	default:
		op.from = last + 1
		if r.IntN(4) == 0 || term == 0 {
			op.from = commit + 1 + r.Uint64N(last-commit+1)
			op.hard[0], op.hard[1] = term+1, r.Uint64N(3)
		}
	}
	for range r.IntN(12) {
		op.terms = append(op.terms, op.hard[0])
	}
	if len(op.terms) > 0 || op.snap[0] > 0 || op.from == last+1 {
		end := max(op.from+uint64(len(op.terms))-1, op.snap[0])
		op.hard[2] = max(op.hard[2], commit+r.Uint64N(end-commit+1))
	}
	return op
}

// outcomes are the models that a log may show if op was begun, in order; the
// last is that of op done.
func (op *testLogOp) outcomes(m *testLogModel) []*testLogModel {
	all := []*testLogModel{m}
	add := func(edit func(m *testLogModel)) {
		next := all[len(all)-1].clone()
		edit(next)
		all = append(all, next)
	}
	switch {
	case op.create > 0:
		add(func(m *testLogModel) {
			m.snap = [2]uint64{op.create, m.term(op.create)}
			m.compact(op.create - min(m.retain, op.create))
		})
		return all
	case op.compact > 0:
		add(func(m *testLogModel) { m.compact(op.compact) })
		return all
	case op.truncate > 0:
		add(func(m *testLogModel) { m.cleared = max(m.cleared, op.truncate) })
		return all
	case op.checkpoint > 0:
		add(func(m *testLogModel) { m.checkpoint = op.checkpoint })
		return all
	case op.snap[0] > 0:
		add(func(m *testLogModel) {
			m.snap, m.base, m.terms = op.snap, op.snap, nil
			if m.hard[0] > 0 {
				m.hard[2] = max(m.hard[2], op.snap[0]) // as Open puts it
			}
		})
	}
	for k, term := range op.terms {
		add(func(m *testLogModel) {
			m.cleared = min(m.cleared, op.from)
			m.terms = append(m.terms[:op.from+uint64(k)-m.base[0]-1], term)
		})
	}
	add(func(m *testLogModel) { m.hard = op.hard })
	return all
}

// do calls the log.
func (op *testLogOp) do(d *mmapwal.DiskStorage, m *testLogModel) error {
	switch {
	case op.create > 0:
		data := testLogKillSnapshot(op.create, m.term(op.create))
		return d.CreateSnapshot(op.create, testLogConf(1, 2, 3), data)
	case op.checkpoint > 0:
		return d.SetUint(mmapwal.CheckpointIndex, op.checkpoint)
	case op.compact > 0:
		return d.Compact(op.compact)
	case op.truncate > 0:
		return d.TruncateEntriesUntil(op.truncate)
	}
	var snap *raftpb.Snapshot
	if op.snap[0] > 0 {
		snap = testLogSnapshot(op.snap[0], op.snap[1], testLogKillSnapshot(op.snap[0], op.snap[1]))
	}
	var es []*raftpb.Entry
	for k, term := range op.terms {
		i := op.from + uint64(k)
		es = append(es, &raftpb.Entry{Index: &i, Term: &term, Data: m.data(i, term)})
	}
	return d.Save(testLogHard(op.hard[0], op.hard[1], op.hard[2]), es, snap)
}

// testLogKillChild calls the log until it is killed, and tells the parent of
// each call that returned.
func testLogKillChild(t *testing.T, dir string) {
	seed, _ := strconv.ParseUint(os.Getenv("MMAPWAL_TEST_SEED"), 10, 64)
	var edits []func(*mmapwal.Options)
	if os.Getenv("MMAPWAL_TEST_NOSYNC") != "" {
		edits = append(edits, testLogNoSync)
	}
	testLogTell("open")
	d := testLogOpen(t, dir, edits...)
	m := testLogModelOf(t, d)
	r := rand.New(rand.NewPCG(seed, 1))
	for {
		op := testLogNextOp(r, m)
		if err := op.do(d, m); err != nil {
			testLogTell("failed " + err.Error())
			t.Fatal(err)
		}
		testLogTell("done")
		outcomes := op.outcomes(m)
		m = outcomes[len(outcomes)-1]
	}
}

// testLogKillRound runs a child on dir, kills it after delay, and returns how
// many calls it has told to be done.
func testLogKillRound(t *testing.T, cmd *exec.Cmd, delay time.Duration) (done int) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	for in.Scan() && in.Text() != "tell open" {
	}
	timer := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for in.Scan() {
		if in.Text() == "tell done" {
			done++
		} else {
			t.Errorf("the child says %q", in.Text())
		}
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait()
	return done
}

// testLogKillCheck compares the log in dir with what may be there after the
// first calls of a seed were done, and returns the model that it shows.
func testLogKillCheck(t *testing.T, dir string, m *testLogModel, seed uint64, done int, edits ...func(*mmapwal.Options)) *testLogModel {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	for range done {
		op := testLogNextOp(r, m)
		outcomes := op.outcomes(m)
		m = outcomes[len(outcomes)-1]
	}
	op := testLogNextOp(r, m)
	d := testLogOpen(t, dir, edits...)
	defer testLogClose(t, d)
	got := testLogContent(t, d)
	for _, next := range op.outcomes(m) {
		if next.String() == got {
			return next
		}
	}
	testLogSame(t, fmt.Sprintf("after %d calls of seed %d, next %+v", done, seed, op), got, m.String())
	return nil
}

// testLogSeed returns the seed of a random test; SEED sets it.
func testLogSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64N(1 << 32)
	if s := os.Getenv("SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SEED=%d", seed)
	return seed
}

// TestKill kills a process that saves, again and again. All that it was told to
// be saved is there afterwards, and of the rest a prefix.
func TestKill(t *testing.T) {
	seed := testLogSeed(t)
	t.Run("HardSync", func(t *testing.T) { testLogKill(t, seed, 15, "") })
	t.Run("NoSync", func(t *testing.T) { testLogKill(t, seed, 6, "1") })
}

func testLogKill(t *testing.T, seed uint64, rounds int, noSync string) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(seed, 2))
	m, total := &testLogModel{data: testLogKillData}, 0
	for round := range rounds {
		seed := r.Uint64()
		cmd := testLogCommand(t, "save", dir, "MMAPWAL_TEST_SEED="+strconv.FormatUint(seed, 10), "MMAPWAL_TEST_NOSYNC="+noSync)
		done := testLogKillRound(t, cmd, time.Duration(r.Int64N(int64(250*time.Millisecond))))
		total += done
		if !testLogExists(dir + "/wal.meta") {
			continue
		}
		m = testLogKillCheck(t, dir, m, seed, done, testLogReadOnly)
		if round%2 == 0 { // else the next child recovers
			testLogKillCheck(t, dir, m, 0, 0)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d calls done, %d entries and snapshot %d at the end", total, len(m.terms), m.snap[0])
}
