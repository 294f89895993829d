// Command kms shows a log that is encrypted under a key of a key management
// service. Tink's AEAD has the shape of encryption.KeyWrapper, so one that calls
// AWS KMS, Google Cloud KMS or Vault is passed to the log as it is:
//
//	client, err := gcpkms.NewClientWithOptions(ctx, "gcp-kms://")
//	kms, err := client.GetAEAD("gcp-kms://projects/p/locations/global/keyRings/r/cryptoKeys/k")
//	wal, err := mmapwal.Open(dir, &mmapwal.Options{KeyWrapper: kms})
//
// Here a keyset in memory stands in for the service. It is called when the log is
// opened, and when the key is rotated; never for an entry.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
	"go.etcd.io/raft/v3/raftpb"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(out io.Writer) error {
	dir, err := os.MkdirTemp("", "raftwal-kms")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	old, err := newKMS()
	if err != nil {
		return err
	}
	if err := save(dir, old); err != nil {
		return err
	}
	rotated, err := newKMS()
	if err != nil {
		return err
	}
	if err := rotate(dir, old, rotated); err != nil {
		return err
	}
	if _, err := open(dir, old); err == nil {
		return fmt.Errorf("the old key still opens the log")
	}
	return show(out, dir, rotated)
}

// newKMS returns what a client of a key management service would.
func newKMS() (tink.AEAD, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, err
	}
	return aead.New(handle)
}

func open(dir string, kms tink.AEAD) (*mmapwal.DiskStorage, error) {
	return mmapwal.Open(dir, &mmapwal.Options{
		KeyWrapper: kms, Logger: slog.New(slog.DiscardHandler),
	})
}

// save makes the log and stores an entry.
func save(dir string, kms tink.AEAD) error {
	wal, err := open(dir, kms)
	if err != nil {
		return err
	}
	entry := &raftpb.Entry{Index: new(uint64(1)), Term: new(uint64(1)), Data: []byte("a secret")}
	if err := wal.Save(nil, []*raftpb.Entry{entry}, nil); err != nil {
		return err
	}
	return wal.Close()
}

// rotate makes the log one that opens with the new key only.
func rotate(dir string, old, rotated tink.AEAD) error {
	wal, err := open(dir, old)
	if err != nil {
		return err
	}
	if err := wal.RotateKeyWrapper(rotated); err != nil {
		return err
	}
	return wal.Close()
}

// show prints what the log holds.
func show(out io.Writer, dir string, kms tink.AEAD) error {
	wal, err := open(dir, kms)
	if err != nil {
		return err
	}
	defer wal.Close()
	entries, err := wal.Entries(1, 2, 1<<20)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "encrypted: %v, entry 1: %s\n", wal.Stats().Encrypted, entries[0].GetData())
	return err
}
