package fuzz

import (
	"bytes"
	"crypto/rand"
	"reflect"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// Fields of a page of wal.meta.
const (
	metaMagic    = 24
	metaChecksum = 60
	metaUsed     = 112
)

// FuzzMetaPage: no page makes Decode panic, and one that it accepts is encoded to
// a page that means the same.
func FuzzMetaPage(f *testing.F) {
	ours := golden.Read(f, "../metafile/testdata/page.hex", page.Size)
	dgraph := golden.Read(f, "../metafile/testdata/dgraph.hex", page.Size)
	for _, p := range [][]byte{trimmed(ours), trimmed(dgraph), nil} {
		f.Add(p, false)
		f.Add(p, true)
	}
	f.Fuzz(func(t *testing.T, input []byte, seal bool) {
		p := make([]byte, page.Size)
		copy(p, input)
		if seal { // get past the checksum, to the fields
			copy(p[metaMagic:], ours[metaMagic:metaMagic+12]) // magic and version
			used := min(max(page.Order.Uint32(p[metaUsed:]), metaUsed+4), page.Size)
			page.Seal(p[:used], metaChecksum)
		}
		checkPage(t, p)
		_, _ = metafile.Decode(input) // of any length
	})
}

// trimmed leaves out the zeros at the end, for the fuzzer has no use for them.
func trimmed(p []byte) []byte { return bytes.TrimRight(p, "\x00") }

func checkPage(t *testing.T, p []byte) {
	t.Helper()
	m, err := metafile.Decode(p)
	if err != nil {
		return
	}
	if _, err := m.SnapshotProto(); !m.Encrypted && err != nil {
		t.Errorf("accepted, but its snapshot is %v", err)
	}
	again := make([]byte, page.Size)
	keys, err := encryption.NewDirectoryKey(rand.Reader, m.LogID, 32)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := keys.NewAuthenticator()
	if err != nil {
		t.Fatal(err)
	}
	m.Encode(again, auth)
	got, err := metafile.Decode(again)
	if err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("decoded\n%+v, encoded and decoded\n%+v, error %v", m, got, err)
	}
}
