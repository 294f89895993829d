// Package samples unpacks, for tests, the directories in testdata that Dgraph
// wrote, and says what Dgraph itself reads from them.
package samples

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Names are those of the directories that Dgraph wrote.
var Names = []string{"empty", "overwritten", "rotated", "small", "truncated"}

// Encrypted is a directory whose KEYREGISTRY and ciphertext Badger's code wrote;
// the rest of it follows Dgraph's source. Its second file is not encrypted.
const (
	Encrypted    = "encrypted"
	EncryptedKey = "0123456789abcdef0123456789abcdef"
)

// Expected is what Dgraph reads from a directory.
type Expected struct {
	RaftID     uint64 `json:"raft_id"`
	GroupID    uint64 `json:"group_id"`
	Checkpoint uint64 `json:"checkpoint"`
	HardState  struct {
		Term, Vote, Commit uint64
	} `json:"hard_state"`
	Snapshot struct {
		Index, Term uint64
		ConfState   struct {
			Voters         []uint64
			Learners       []uint64
			VotersOutgoing []uint64 `json:"voters_outgoing"`
			LearnersNext   []uint64 `json:"learners_next"`
			AutoLeave      bool     `json:"auto_leave"`
		} `json:"conf_state"`
		DataLen    int    `json:"data_len"`
		DataSHA256 string `json:"data_sha256"`
	}
	FirstIndex uint64 `json:"first_index"`
	LastIndex  uint64 `json:"last_index"`
	EntryCount int    `json:"entry_count"`
	// RollingSHA256 is over index, term, type (8 bytes each, big-endian) and data
	// of all entries.
	RollingSHA256 string `json:"rolling_sha256"`
	Entries       []Entry
	Physical      struct{ Count int } // with those that the snapshot covers
	Files         []struct {
		SlotsUsed int `json:"slots_used"`
	}
}

// Entry is an entry that Expected lists.
type Entry struct {
	Index, Term uint64
	Type        int32
	Len         int
	SHA256      string
}

func testdata(name string) string {
	_, here, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(here), "..", "testdata", name)
}

// Unpack unpacks the directory of that name and returns where, and what Dgraph
// reads from it.
func Unpack(t testing.TB, name string) (dir string, want *Expected) {
	t.Helper()
	p, err := os.ReadFile(testdata(name + ".expected.json"))
	must(t, err)
	want = new(Expected)
	must(t, json.Unmarshal(p, want))
	f, err := os.Open(testdata(name + ".tar.gz"))
	must(t, err)
	defer f.Close()
	zr, err := gzip.NewReader(f)
	must(t, err)
	to := t.TempDir()
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return filepath.Join(to, name), want
		}
		must(t, err)
		path := filepath.Join(to, filepath.Clean("/"+h.Name))
		if h.FileInfo().IsDir() {
			must(t, os.MkdirAll(path, 0o700))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, writeSparse(path, tr))
	}
}

// writeSparse writes a file, with holes where from has zeros.
func writeSparse(path string, from io.Reader) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	block, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := int64(0); ; {
		n, err := io.ReadFull(from, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := f.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return f.Truncate(at)
		case err != nil:
			return err
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
