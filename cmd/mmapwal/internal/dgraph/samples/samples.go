// Package samples unpacks, for tests, the directories in testdata that Dgraph
// wrote, and says what Dgraph itself reads from them.
package samples

import (
	"path/filepath"
	"runtime"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/golden"
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
	want = golden.ReadJSON[Expected](t, testdata(name+".expected.json"))
	to := t.TempDir()
	golden.Unpack(t, testdata(name+".tar.gz"), to)
	return filepath.Join(to, name), want
}
