// Command asyncraft shows a Raft group that does not wait for its disks: raft runs with
// AsyncStorageWrites, and each node hands what is to be stored to SaveAsync. While a
// sync is under way, further entries are proposed, sent and stored; they share the
// next one.
//
// Three nodes in one process, each with a log of its own, agree on some thousand
// entries, with many in flight. In the middle one of them is killed; it comes back from
// its log. In the end all have applied the same.
//
// What is to be copied is in node.go.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if err := runHere(os.Stdout, 10_000); err != nil {
		fmt.Fprintln(os.Stderr, "asyncraft:", err)
		os.Exit(1)
	}
}

func runHere(out io.Writer, proposals uint64) (err error) {
	dir, err := os.MkdirTemp("", "asyncraft-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return run(out, dir, proposals)
}

const (
	members  = 3
	window   = 512         // proposals under way at a time
	patience = time.Second // without an entry applied, until those missing are proposed again
)

// group is three nodes, and the client that proposes to the first one.
type group struct {
	dir   string
	net   *network
	nodes []*node
}

// run has a new group with its logs in dir agree on so many proposals.
func run(out io.Writer, dir string, proposals uint64) (err error) {
	g := &group{dir: dir, net: newNetwork()}
	defer func() { err = errors.Join(err, g.stop()) }()
	for id := uint64(1); id <= members; id++ {
		n, err := startNode(id, filepath.Join(dir, fmt.Sprint(id)), g.net)
		if err != nil {
			return err
		}
		g.nodes = append(g.nodes, n)
	}
	started := time.Now()
	if err := g.propose(1, proposals/2); err != nil {
		return err
	}
	kept, err := g.killLast()
	if err != nil {
		return err
	}
	if err := g.propose(proposals/2+1, proposals); err != nil {
		return err
	}
	if err := g.agree(proposals); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d nodes applied the same %d proposals in %v; node %d was killed, and came back with %d entries\n",
		members, proposals, time.Since(started).Round(time.Millisecond), members, kept)
	return err
}

// propose returns when the first node has applied the proposals [from, to].
func (g *group) propose(from, to uint64) error {
	n := g.nodes[0]
	applied, next, progress := uint64(0), from, time.Now()
	for {
		if err := g.failure(); err != nil {
			return err
		}
		now := n.state.countIn(from, to)
		switch {
		case now == to-from+1:
			return nil
		case now > applied:
			applied, progress = now, time.Now()
		case time.Since(progress) > patience:
			next, progress = from, time.Now() // some were dropped: there was no leader
		}
		for ; next <= to && next < from+applied+window; next++ {
			if !n.state.has(next) {
				n.propose(binary.BigEndian.AppendUint64(nil, next))
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// killLast kills the last node and starts it again with what its log holds. It returns
// how many entries those are.
func (g *group) killLast() (kept uint64, err error) {
	old := g.nodes[members-1]
	g.nodes = g.nodes[:members-1]
	dir := old.dir + "-after-kill"
	if err := old.kill(dir); err != nil {
		return 0, err
	}
	n, err := startNode(old.id, dir, g.net)
	if err != nil {
		return 0, err
	}
	g.nodes = append(g.nodes, n)
	return n.found, nil
}

// agree waits until all nodes have applied as many entries as the first one, and
// compares them.
func (g *group) agree(proposals uint64) error {
	for _, n := range g.nodes {
		for n.state.countIn(1, proposals) < proposals {
			if err := g.failure(); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}
	want := g.nodes[0].state.sum()
	for _, n := range g.nodes {
		if got := n.state.sum(); got != want {
			return fmt.Errorf("node %d has applied other entries than node 1: %x instead of %x", n.id, got, want)
		}
	}
	return nil
}

// failure returns what a node has failed with.
func (g *group) failure() error {
	for _, n := range g.nodes {
		if err := n.failure(); err != nil {
			return fmt.Errorf("node %d: %w", n.id, err)
		}
	}
	return nil
}

func (g *group) stop() (err error) {
	for _, n := range g.nodes {
		err = errors.Join(err, n.close())
	}
	return err
}
