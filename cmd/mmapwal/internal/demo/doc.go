// Package demo shows a Raft group of three processes that survives being killed,
// on logs of package mmapwal.
//
// # What runs
//
// Run starts three processes, the nodes (RunNode). Each has a raft.RawNode on
// its own log under HardSync; they talk to one another over TCP on 127.0.0.1.
// The parent holds a pipe to and from each node (wire.go): it tells them where
// their peers listen, gives writes to the leader, and hears what each node has
// applied. It kills nodes with SIGKILL while they write, starts them again, stops
// all of them in the end, and reads the three logs (check.go). A node whose pipe
// from the parent ends exits, so none outlives the parent, however that ends.
//
// # What is promised
//
// The parent is the only client. Its writes are numbered from 1, and the number
// is part of the entry. The state machine of a node applies a write if its number
// follows that of the last write it applied, and ignores every other entry: so
// the entries of the log decide alone which of them count, the same on each
// node, and each write counts at most once and in order, however often it was
// sent. A node tells the parent the index of the entry at which it applied a
// write. A write is acknowledged when the node that was asked for it has told.
//
// Up to 32 writes are in flight. When the leader changes, or nothing is
// acknowledged for a while, the parent asks again for all that is not
// acknowledged, in order. That may put a write into the log twice.
//
// # What is checked
//
// Each log, read back after all nodes have stopped, must hold nothing but whole
// writes of this run, none of them more often than it was sent. Replayed, it must
// apply all acknowledged writes, each at the index at which it was acknowledged.
// And the logs must agree on every entry that is committed in all of them.
package demo
