// Package histories makes up histories of a Raft log, all that raft may do with one and
// nothing else, runs them on a simulated disk, and compares what each way of looking
// at the log says with a model of it.
//
// # What is legal
//
// A history is what one node of a group saves. A Generator keeps, beside the node's log,
// those of the leaders: a new leader's log is the committed entries, and a part of what
// any earlier leader had, and entries of its own term. So a conflict reaches back to
// anything that is not committed, again and deeper; entries that were replaced come
// back, by another leader, as they were; an index and a term name one entry for ever.
// Terms rise, votes are cast once a term, the commit index never falls, and snapshots are
// of committed entries. Recorded histories are those of real raft nodes: see Record.
//
// # What is looked at
//
// After each call the log itself is read, through every method of raft's Storage. Some
// calls are followed by more looks: see Look. All must agree with the model, a State.
//
// # When one fails
//
// A history that fails is shrunk: calls are left out, and what remains is fitted to be
// legal again. The Failure prints it as a short program.
//
// # What is never made
//
// Joint configurations and snapshots of more than three voters; snapshots of index 0
// but the first; entries above 1.3 MiB; more than some 400 entries and 60 files; two
// callers at once, so no Save that shares its sync with another but SaveAsync; RotateKey;
// KeyWrapper; KeepValidPrefix but on damage; a disk that is full or fails, or calls
// that fail for another reason than the power; readers that live longer than a call.
package histories
