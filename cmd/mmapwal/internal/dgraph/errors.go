// Package dgraph reads and writes the raftwal directories of Dgraph.
//
// Dgraph stores no checksums. What can be checked is checked: offsets and
// lengths against the files, indexes and terms against each other. A flipped bit
// in the data of an entry goes unnoticed.
package dgraph

import (
	"errors"
	"fmt"
)

// Errors to branch on. Damage is a *mmapwal.CorruptError, which says where.
var (
	// ErrNotDgraph: the directory is not one of Dgraph's.
	ErrNotDgraph = errors.New("not a raftwal directory of Dgraph")
	// ErrOurs: it is a log of package mmapwal.
	ErrOurs = fmt.Errorf("%w: it is a log of package mmapwal already, which needs no import", ErrNotDgraph)
	// ErrKeyRequired: entries are encrypted, and no key was given.
	ErrKeyRequired = errors.New("the entries are encrypted")
	// ErrKeyLost: KEYREGISTRY is gone, or was made anew, and with it the key of the entries.
	ErrKeyLost = errors.New("without the " + registryName + " of the time when they were written nobody can read them; " +
		"put it back, or import the log of another replica")
	// ErrWrongKey: the key is not that of KEYREGISTRY.
	ErrWrongKey = errors.New("the key does not open KEYREGISTRY")
	// ErrNotEncrypted: a key was given, but there is nothing that it could open.
	ErrNotEncrypted = errors.New("the directory is not encrypted")
	// ErrSnapshotTooLarge: Dgraph keeps snapshots in wal.meta.
	ErrSnapshotTooLarge = errors.New("the snapshot is too large for Dgraph's wal.meta")
)
