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
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testLogKillData is the data of an entry: some large, most small.
func testLogKillData(i, term uint64) []byte {
	size := int((i*7919 + term*104729) % 300)
	if (i+term)%11 == 0 {
		size += 90_000
	}
	return oracle.Data(i, term, size)
}

// testLogKillChild calls the log until it is killed, and tells the parent of
// each call that returned.
func testLogKillChild(t *testing.T, dir string) {
	seed, _ := strconv.ParseUint(os.Getenv("MMAPWAL_TEST_SEED"), 10, 64)
	var edits []func(*mmapwal.Options)
	if os.Getenv("MMAPWAL_TEST_NOSYNC") != "" {
		edits = append(edits, testLogNoSync)
	}
	if os.Getenv("MMAPWAL_TEST_ENCRYPTED") != "" {
		edits = append(edits, testLogEncrypted)
	}
	testLogTell("open")
	d := testLogOpen(t, dir, edits...)
	m, err := oracle.Read(d)
	if err != nil {
		t.Fatal(err)
	}
	m.Data = testLogKillData
	r := rand.New(rand.NewPCG(seed, 1))
	for {
		op := oracle.Next(r, m)
		if err := op.Do(d, m); err != nil {
			testLogTell("failed " + err.Error())
			t.Fatal(err)
		}
		testLogTell("done")
		m = op.Done(m)
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
func testLogKillCheck(t *testing.T, dir string, m *oracle.Model, seed uint64, done int, edits ...func(*mmapwal.Options)) *oracle.Model {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	for range done {
		op := oracle.Next(r, m)
		m = op.Done(m)
	}
	op := oracle.Next(r, m)
	d := testLogOpen(t, dir, edits...)
	defer testLogClose(t, d)
	got := testLogContent(t, d)
	for _, next := range op.Outcomes(m) {
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
	t.Run("HardSync", func(t *testing.T) { testLogKill(t, seed, 10) })
	t.Run("NoSync", func(t *testing.T) { testLogKill(t, seed, 6, "MMAPWAL_TEST_NOSYNC=1") })
	t.Run("encrypted", func(t *testing.T) { testLogKill(t, seed, 8, "MMAPWAL_TEST_ENCRYPTED=1") })
}

func testLogKill(t *testing.T, seed uint64, rounds int, env ...string) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(seed, 2))
	encrypted := func(o *mmapwal.Options) {
		if slices.Contains(env, "MMAPWAL_TEST_ENCRYPTED=1") {
			testLogEncrypted(o)
		}
	}
	m, total := &oracle.Model{Data: testLogKillData}, 0
	for round := range rounds {
		seed := r.Uint64()
		cmd := testLogCommand(t, "save", dir, append(env, "MMAPWAL_TEST_SEED="+strconv.FormatUint(seed, 10))...)
		done := testLogKillRound(t, cmd, time.Duration(r.Int64N(int64(250*time.Millisecond))))
		total += done
		if !testLogExists(dir + "/wal.meta") {
			continue
		}
		m = testLogKillCheck(t, dir, m, seed, done, encrypted, testLogReadOnly)
		if round%2 == 0 { // else the next child recovers
			testLogKillCheck(t, dir, m, 0, 0, encrypted)
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d calls done, %d entries and snapshot %d at the end", total, len(m.Terms), m.Snap[0])
}
