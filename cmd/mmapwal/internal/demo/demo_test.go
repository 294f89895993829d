package demo

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

func TestMachineAppliesEachWriteOnceAndInOrder(t *testing.T) {
	s := newSession(1)
	m := machine{session: s.id}
	for i, seq := range []uint64{1, 3, 2, 2, 1, 3, 5, 4} {
		if _, _, err := m.apply(newEntry(uint64(i+1), 1, s.payload(seq))); err != nil {
			t.Fatal(err)
		}
	}
	if want := []uint64{1, 3, 6, 8}; !slices.Equal(m.at, want) {
		t.Errorf("applied at %v, want %v", m.at, want)
	}
}

func TestPayloadDependsOnSeedAndNumberAlone(t *testing.T) {
	a, b := newSession(1), newSession(2)
	if !bytes.Equal(a.payload(5), newSession(1).payload(5)) {
		t.Error("the same write differs")
	}
	if a.id == b.id || bytes.Equal(a.payload(5), b.payload(5)) || bytes.Equal(a.payload(5), a.payload(6)) {
		t.Error("different writes are the same")
	}
}

func TestBlowsAreSpreadAndRepeatable(t *testing.T) {
	for _, c := range []Config{
		{Writes: 10000, Kills: 20, Seed: 1},
		{Writes: 200, Kills: 20, Seed: 2},
		{Writes: 10, Kills: 1, Seed: 3},
		{Writes: 1, Kills: 0, Seed: 4},
	} {
		blows := planBlows(&c)
		if len(blows) != c.Kills || !slices.Equal(blows, planBlows(&c)) {
			t.Fatalf("%+v: %v", c, blows)
		}
		for i, b := range blows {
			from, to := i*c.Writes/c.Kills, (i+1)*c.Writes/c.Kills
			if b.after < uint64(from) || b.after >= uint64(to) || b.until <= b.after || b.until >= uint64(c.Writes) {
				t.Errorf("%+v: blow %d: %+v", c, i, b)
			}
			if b.victim < 1 || b.victim > nodes || i == 0 && !b.leader {
				t.Errorf("%+v: blow %d: %+v", c, i, b)
			}
		}
	}
}

// idle returns a process that takes requests and does nothing.
func idle() *process { return &process{queue: make(chan request, queueLength)} }

func TestClientAsksAgainAfterALeaderLoss(t *testing.T) {
	now := time.Now()
	c := newClient(newSession(1), 100)
	one := &member{id: 1, process: idle(), status: status{Term: 1}}
	c.pump(100, now)
	c.follow(one, now)
	c.pump(100, now)
	one.applied = 10
	c.acknowledge(one, now)
	if c.acked != 10 || c.asked != window {
		t.Fatalf("acked %d, asked %d", c.acked, c.asked)
	}
	two := &member{id: 2, process: idle(), status: status{Term: 2}, applied: 20}
	c.acknowledge(two, now) // it was not asked
	c.follow(two, now)
	c.acknowledge(two, now) // nor yet
	if c.acked != 10 {
		t.Fatalf("acked %d by a node that was not asked", c.acked)
	}
	c.pump(15, now)
	c.acknowledge(two, now) // for 15 only
	if c.acked != 15 || c.resent() != 5 {
		t.Errorf("acked %d, resent %d", c.acked, c.resent())
	}
}

func TestClientAsksAgainAfterAStall(t *testing.T) {
	now := time.Now()
	c := newClient(newSession(1), 5)
	m := &member{id: 1, process: idle(), status: status{Term: 1}}
	for _, after := range []time.Duration{0, stalledAfter / 2, stalledAfter * 2} {
		c.follow(m, now.Add(after))
		c.pump(5, now.Add(after))
	}
	if c.resent() != 5 {
		t.Errorf("resent %d", c.resent())
	}
}

func TestClusterFindsNodesThatContradict(t *testing.T) {
	c := newCluster(nil, 1, []string{"a", "b", "c"})
	if err := c.place(c.members[0], []uint64{2, 3}); err != nil {
		t.Fatal(err)
	}
	if err := c.place(c.members[1], []uint64{2}); err != nil {
		t.Fatal(err)
	}
	if err := c.place(c.members[1], []uint64{4}); err == nil {
		t.Error("write 2 was applied at 3 and at 4, and nobody minds")
	}
}

func TestRunFailsIfNodesDie(t *testing.T) {
	for name, node := range map[string][]string{
		"at once":      {"/bin/sh", "-c", "echo no way >&2; exit 3"},
		"with success": {"/bin/sh", "-c", "echo no way >&2"},
		"with noise":   {"/bin/sh", "-c", "echo no way >&2; echo this is not gob"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			r, err := Run(t.Context(), Config{Writes: 10, Dir: dir, Node: node})
			if r != nil || err == nil || !strings.Contains(err.Error(), "no way") {
				t.Errorf("report %v, error %v", r, err)
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the directory is still there: %v", err)
			}
		})
	}
}

func TestRunFailsWithoutNodeCommand(t *testing.T) {
	_, err := Run(t.Context(), Config{Writes: 10})
	var wrong *ConfigError
	if !errors.As(err, &wrong) {
		t.Errorf("got: %v", err)
	}
	_, err = Run(t.Context(), Config{Writes: 10, Dir: filepath.Join(t.TempDir(), "x"), Node: []string{filepath.Join(t.TempDir(), "missing")}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got: %v", err)
	}
}

func TestNodeExitsWithItsParent(t *testing.T) {
	requests, in := io.Pipe()
	out, reports := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- RunNode(requests, reports) }()
	if err := gob.NewEncoder(in).Encode(request{Start: &start{ID: 1, Dir: t.TempDir(), Session: 1}}); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := gob.NewDecoder(out).Decode(&r); err != nil || r.Hello == nil {
		t.Fatalf("report %+v, %v", r, err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "the parent is gone") {
			t.Errorf("got: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it goes on")
	}
}

func TestNodeNeedsAStart(t *testing.T) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(request{Stop: true}); err != nil {
		t.Fatal(err)
	}
	if err := RunNode(&b, io.Discard); err == nil {
		t.Error("it ran without being told where")
	}
}

func TestTransportIgnoresStrangers(t *testing.T) {
	a, err := listen(1, 11)
	if err != nil {
		t.Fatal(err)
	}
	b, err := listen(2, 11)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := listen(3, 12)
	if err != nil {
		t.Fatal(err)
	}
	to := map[uint64]string{1: a.listener.Addr().String()}
	stranger.connect(to)
	b.connect(to)
	for term, from := range []*transport{stranger, b} {
		message := &raftpb.Message{To: new(uint64(1)), Term: new(uint64(term))}
		if err := from.send([]*raftpb.Message{message}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // let the stranger's come first
	}
	if m := <-a.inbox; m.GetTerm() != 1 {
		t.Errorf("a stranger's message came through: %v", m)
	}
	for _, x := range []*transport{a, b, stranger} {
		if err := x.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestPercentile(t *testing.T) {
	values := []time.Duration{5, 1, 4, 2, 3}
	for p, want := range map[int]time.Duration{50: 3, 99: 5, 100: 5, 20: 1} {
		if got := percentile(values, p); got != want {
			t.Errorf("percentile %d is %d, want %d", p, got, want)
		}
	}
	if percentile(nil, 50) != 0 {
		t.Error("of nothing, a percentile")
	}
}
