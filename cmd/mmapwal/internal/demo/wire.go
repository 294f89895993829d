package demo

import (
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// request is what the parent tells a node, on its standard input. One of the
// fields is set. The first request is a start.
type request struct {
	Start  *start
	Peers  map[uint64]string // where the nodes that are up listen
	Writes [][]byte          // to propose, in this order
	Stop   bool              // close the log and exit
}

// start is what a node needs to know to run.
type start struct {
	ID      uint64
	Dir     string
	Session uint64
}

// report is what a node tells the parent, on its standard output. The first one
// has a hello.
type report struct {
	Hello   *hello
	Status  status
	Applied []uint64        // indexes of the entries at which the next writes were applied
	Saves   []time.Duration // of the Saves that had to sync
}

// hello says that a node is up.
type hello struct {
	Addr     string
	Recovery mmapwal.Recovery
}

// status is how far a node is.
type status struct {
	Term    uint64
	Leading bool
	Last    uint64 // index of the last entry
	Applied uint64 // index of the last entry applied
}
