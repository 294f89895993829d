package contender

import (
	"path/filepath"

	boltdb "github.com/hashicorp/raft-boltdb/v2"
)

// hashicorpBolt is HashiCorp's log in a B+ tree.
func hashicorpBolt() Contender {
	return Contender{Name: "raft-boltdb", About: "hashicorp/raft-boltdb/v2", Compacts: true, Open: openBolt}
}

func openBolt(dir string, o Options) (Log, error) {
	store, err := boltdb.New(boltdb.Options{Path: filepath.Join(dir, "raft.db"), NoSync: o.NoSync})
	if err != nil {
		return nil, err
	}
	return &hashicorpLog{LogStore: store, close: store.Close}, nil
}
