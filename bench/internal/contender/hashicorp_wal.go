package contender

import (
	"errors"

	"github.com/hashicorp/go-hclog"
	raftwallib "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// hashicorpWAL is HashiCorp's log in files of its own.
func hashicorpWAL() Contender {
	return Contender{Name: "hashicorp-wal", About: "hashicorp/raft-wal", Compacts: true, Open: openHashicorpWAL}
}

func openHashicorpWAL(dir string, o Options) (Log, error) {
	var files types.VFS = fs.New()
	if o.NoSync {
		files = noSyncFS{files}
	}
	meta := &metadb.BoltMetaDB{}
	w, err := raftwallib.Open(dir,
		raftwallib.WithMetaStore(meta),
		raftwallib.WithSegmentFiler(segment.NewFiler(dir, files)),
		raftwallib.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		return nil, err
	}
	// The log does not close its metadata, which keep their lock then.
	return &hashicorpLog{LogStore: w, close: func() error { return errors.Join(w.Close(), meta.Close()) }}, nil
}

// noSyncFS is a file system whose files are not synced: the log has no option
// for that.
type noSyncFS struct{ types.VFS }

// Create implements types.VFS.
func (f noSyncFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	file, err := f.VFS.Create(dir, name, size)
	return noSyncFile{file}, err
}

// OpenWriter implements types.VFS.
func (f noSyncFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	file, err := f.VFS.OpenWriter(dir, name)
	return noSyncFile{file}, err
}

type noSyncFile struct{ types.WritableFile }

// Sync does nothing.
func (noSyncFile) Sync() error { return nil }
