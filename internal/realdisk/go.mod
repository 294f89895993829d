module github.com/seed-2fef92ad/raftwal/internal/realdisk

go 1.26.0

require (
	github.com/hanwen/go-fuse/v2 v2.12.1
	github.com/seed-2fef92ad/raftwal v0.0.0
	golang.org/x/sys v0.49.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgraph-io/ristretto/v2 v2.4.2 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	go.etcd.io/raft/v3 v3.7.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/seed-2fef92ad/raftwal => ../..
