// Package contender puts one interface in front of the logs that are compared.
// Each has a file of its own; All lists them.
package contender

import (
	"encoding/binary"
	"errors"

	"go.etcd.io/raft/v3/raftpb"
)

// Names that reports treat specially.
const (
	Floor = "floor"
	Ours  = "raftwal"
)

// errNoReads is what a contender answers that cannot read single entries.
var errNoReads = errors.ErrUnsupported

// Options say how a log is opened.
type Options struct {
	NoSync bool // what was appended need not be durable
}

// Log is the open log of a contender. It is used by one goroutine at a time.
type Log interface {
	// Append stores es, which continue the log. They are durable when it returns,
	// unless the log was opened with NoSync. They belong to the log from then on.
	Append(es []*raftpb.Entry) error
	// Read hands the data of the entries [lo, hi) to visit, one after another, in
	// the way that is the log's fastest. visit must not keep it.
	Read(lo, hi uint64, visit func(data []byte)) error
	// Close ends the use of the log cleanly.
	Close() error
}

// Contender is a log that is measured.
type Contender struct {
	Name  string
	About string

	// WriteOnly: the log cannot read single entries.
	WriteOnly bool
	// Open opens the log in dir, or makes one there if dir is empty.
	Open func(dir string, o Options) (Log, error)
}

// All returns the contenders, the physical floor first.
func All() []Contender {
	return []Contender{
		floor(),
		raftwal(),
		encrypted(),
		etcd(),
		etcdInMemory(),
		hashicorpWAL(),
		hashicorpBolt(),
		tidwall(),
		pebbleLog(),
	}
}

// Logs that store plain bytes get an entry as its term, its type and its data.
const entryHeader = 9

// encode appends e to buf.
func encode(buf []byte, e *raftpb.Entry) []byte {
	buf = binary.BigEndian.AppendUint64(buf, e.GetTerm())
	buf = append(buf, byte(e.GetType()))
	return append(buf, e.GetData()...)
}

// dataOf returns the data of an entry that encode made.
func dataOf(b []byte) ([]byte, error) {
	if len(b) < entryHeader {
		return nil, errors.New("contender: an entry without a header")
	}
	return b[entryHeader:], nil
}
