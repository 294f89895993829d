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
	Reference = "reference"
	Ours      = "raftwal"
)

// errNoReads is what a contender answers that cannot read single entries.
var errNoReads = errors.ErrUnsupported

// Options say how a log is opened.
type Options struct {
	NoSync bool // what was appended need not be durable

	// For logs that are Ours only.
	Batch     bool  // a power cut may take 1,000 entries, or those of 10 ms
	Reuse     bool  // as many dead files are kept to be used again as there are
	FileBytes int64 // of records in a file; 0: the default
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

// Async is a Log that can save without waiting.
type Async interface {
	// AppendAsync is Append that returns before the entries are durable, and calls
	// done when they are, in the order of the calls.
	AppendAsync(es []*raftpb.Entry, done func(error))
}

// Terms is a Log that knows the terms of its entries.
type Terms interface {
	Term(i uint64) (uint64, error)
}

// Compacter is a Log that can drop its first entries.
type Compacter interface {
	// Compact drops the entries up to i.
	Compact(i uint64) error
}

// Contender is a log that is measured.
type Contender struct {
	Name  string
	About string

	Ours      bool // a log of this repository: it is Async, and uses files again
	WriteOnly bool // it cannot read single entries
	Terms     bool // it is Terms
	Compacts  bool // it is a Compacter

	// Open opens the log in dir, or makes one there if dir is empty.
	Open func(dir string, o Options) (Log, error)
}

// All returns the contenders, the reference first.
func All() []Contender {
	return []Contender{
		reference(),
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
