package main

import (
	"errors"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

func TestRun(t *testing.T) {
	var out strings.Builder
	if err := run(&out, t.TempDir(), 3000); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^3 nodes applied the same 3000 proposals in .*; node 3 was killed, and came back with [1-9]\d* entries\n$`)
	if !want.MatchString(out.String()) {
		t.Errorf("it says %q", out.String())
	}
}

// TestFailedSave: what could not be stored is told to nobody, and ends the node.
func TestFailedSave(t *testing.T) {
	net := newNetwork()
	other := &node{id: 2, inbox: newQueue()}
	net.join(other)
	n, err := startNode(1, filepath.Join(t.TempDir(), "log"), net)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.wal.Close(); err != nil {
		t.Fatal(err)
	}
	n.store(&raftpb.Message{
		Entries:   []*raftpb.Entry{{Index: new(uint64(1)), Term: new(uint64(1))}},
		Responses: []*raftpb.Message{{Type: raftpb.MsgAppResp.Enum(), To: new(uint64(2))}},
	})
	<-n.stopping
	n.threads.Wait()
	if !errors.Is(n.failure(), mmapwal.ErrClosed) {
		t.Errorf("the node failed with %v", n.failure())
	}
	for _, m := range other.inbox.take() {
		if m.GetType() == raftpb.MsgAppResp {
			t.Errorf("node 2 was told %v", m)
		}
	}
}
