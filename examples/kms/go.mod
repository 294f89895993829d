module github.com/seed-2fef92ad/raftwal/examples/kms

go 1.26.0

require (
	github.com/seed-2fef92ad/raftwal v0.0.0
	go.etcd.io/raft/v3 v3.7.0
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/dgraph-io/ristretto/v2 v2.4.2 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/tink-crypto/tink-go/v2 v2.9.0
	golang.org/x/crypto v0.53.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/seed-2fef92ad/raftwal => ../..
