package dgraph

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/dgraph/samples"
	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noProgress(int) {}

// TestSamples: what Dgraph wrote is read as Dgraph reads it.
func TestSamples(t *testing.T) {
	for _, name := range samples.Names {
		t.Run(name, func(t *testing.T) {
			dir, want := samples.Unpack(t, name)
			l, err := Open(dir, nil)
			must(t, err)
			compareSample(t, &l.Contents, want)
			used := 0
			for _, f := range want.Files {
				if f.SlotsUsed > 0 {
					used++
				}
			}
			if l.LeftOut != want.Physical.Count-want.EntryCount || l.Files != used || l.EncryptedFiles != 0 {
				t.Errorf("%d entries left out, %d files, %d of them encrypted", l.LeftOut, l.Files, l.EncryptedFiles)
			}
		})
	}
}

func TestEncryptedSample(t *testing.T) {
	dir, want := samples.Unpack(t, samples.Encrypted)
	l, err := Open(dir, []byte(samples.EncryptedKey))
	must(t, err)
	compareSample(t, &l.Contents, want)
	if l.Files != 3 || l.EncryptedFiles != 2 {
		t.Errorf("%d files, %d of them encrypted", l.Files, l.EncryptedFiles)
	}
}

func compareSample(t *testing.T, c *transfer.Contents, want *samples.Expected) {
	t.Helper()
	if c.RaftID != want.RaftID || c.GroupID != want.GroupID || c.Checkpoint != want.Checkpoint {
		t.Errorf("ids %d, %d, checkpoint %d", c.RaftID, c.GroupID, c.Checkpoint)
	}
	if h := c.HardState; h.GetTerm() != want.HardState.Term || h.GetVote() != want.HardState.Vote || h.GetCommit() != want.HardState.Commit {
		t.Errorf("hard state %v", h)
	}
	if c.First != want.FirstIndex || c.Last != want.LastIndex || c.Count() != want.EntryCount {
		t.Errorf("%d entries, from %d to %d", c.Count(), c.First, c.Last)
	}
	compareSnapshot(t, c.Snapshot, want)
	compareSampleEntries(t, c, want)
}

func compareSnapshot(t *testing.T, s *raftpb.Snapshot, want *samples.Expected) {
	t.Helper()
	m, cs, w := s.GetMetadata(), s.GetMetadata().GetConfState(), want.Snapshot
	if m.GetIndex() != w.Index || m.GetTerm() != w.Term || len(s.GetData()) != w.DataLen || sum(s.GetData()) != w.DataSHA256 {
		t.Errorf("snapshot %v", s)
	}
	for _, x := range [][2][]uint64{
		{cs.GetVoters(), w.ConfState.Voters}, {cs.GetLearners(), w.ConfState.Learners},
		{cs.GetVotersOutgoing(), w.ConfState.VotersOutgoing}, {cs.GetLearnersNext(), w.ConfState.LearnersNext},
	} {
		if !slices.Equal(x[0], x[1]) {
			t.Errorf("conf state %v", cs)
		}
	}
	if cs.GetAutoLeave() != w.ConfState.AutoLeave {
		t.Errorf("conf state %v", cs)
	}
}

func compareSampleEntries(t *testing.T, c *transfer.Contents, want *samples.Expected) {
	t.Helper()
	listed, rolling, next := want.Entries, sha256.New(), c.First
	for e, err := range c.Entries {
		must(t, err)
		if e.GetIndex() != next {
			t.Fatalf("entry %d comes at %d", e.GetIndex(), next)
		}
		next++
		for _, v := range []uint64{e.GetIndex(), e.GetTerm(), uint64(e.GetType())} {
			rolling.Write(binary.BigEndian.AppendUint64(nil, v))
		}
		rolling.Write(e.GetData())
		if len(listed) == 0 || listed[0].Index != e.GetIndex() {
			continue
		}
		got := samples.Entry{Index: e.GetIndex(), Term: e.GetTerm(), Type: int32(e.GetType()), Len: len(e.GetData()), SHA256: sum(e.GetData())}
		if got != listed[0] {
			t.Fatalf("entry %+v, want %+v", got, listed[0])
		}
		listed = listed[1:]
	}
	if len(listed) > 0 {
		t.Errorf("entry %d did not come", listed[0].Index)
	}
	if got := hex.EncodeToString(rolling.Sum(nil)); got != want.RollingSHA256 {
		t.Errorf("SHA-256 over all entries %s, want %s", got, want.RollingSHA256)
	}
}

func sum(p []byte) string {
	s := sha256.Sum256(p)
	return hex.EncodeToString(s[:])
}

// contents returns a log with n entries behind a snapshot at 10 of term 2.
func contents(n int) *transfer.Contents {
	c := &transfer.Contents{
		RaftID: 3, GroupID: 4, Checkpoint: 5,
		HardState: &raftpb.HardState{Term: new(uint64(7)), Vote: new(uint64(1)), Commit: new(uint64(11))},
		Snapshot: &raftpb.Snapshot{Data: []byte("data"), Metadata: &raftpb.SnapshotMetadata{
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}, Index: new(uint64(10)), Term: new(uint64(2)),
		}},
		First: 11, Last: uint64(10 + n),
	}
	c.Entries = func(yield func(*raftpb.Entry, error) bool) {
		for i := c.First; i <= c.Last; i++ {
			e := &raftpb.Entry{Index: new(i), Term: new(2 + i/1000), Type: new(raftpb.EntryType(i % 3))}
			e.Data = bytes.Repeat([]byte{byte(i)}, int(i%7))
			if !yield(e, nil) {
				return
			}
		}
	}
	return c
}

// write writes contents(n) and returns the directory.
func write(t testing.TB, n int) string {
	t.Helper()
	dir := t.TempDir()
	must(t, Write(context.Background(), dir, contents(n), noProgress))
	return dir
}

func TestWrite(t *testing.T) {
	for _, n := range []int{0, 1, maxSlots, maxSlots + 1, 2*maxSlots + 5} {
		dir := write(t, n)
		l, err := Open(dir, nil)
		must(t, err)
		want := contents(n)
		want.HardState.Commit = new(min(*want.HardState.Commit, want.Last))
		must(t, transfer.Compare(want, &l.Contents, noProgress))
		if want := (n + maxSlots - 1) / maxSlots; l.Files != want {
			t.Errorf("%d entries are in %d files, want %d", n, l.Files, want)
		}
		if info, err := os.Stat(filepath.Join(dir, metaName)); err != nil || info.Size() != metaBytes {
			t.Errorf("wal.meta: %v, %v", info, err)
		}
	}
}

func TestWriteStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	stop := func(done int) {
		if done == 50 {
			cancel()
		}
	}
	if err := Write(ctx, t.TempDir(), contents(100), stop); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	c := contents(1)
	c.Snapshot.Data = make([]byte, MaxSnapshot)
	dir := t.TempDir()
	if err := Write(context.Background(), dir, c, noProgress); !errors.Is(err, ErrSnapshotTooLarge) {
		t.Errorf("error %v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

func TestCompare(t *testing.T) {
	for name, change := range map[string]func(c *transfer.Contents){
		"group ID":     func(c *transfer.Contents) { c.GroupID++ },
		"commit index": func(c *transfer.Contents) { c.HardState.Commit = new(uint64(12)) },
		"snapshot":     func(c *transfer.Contents) { c.Snapshot.Data = nil },
		"last index":   func(c *transfer.Contents) { c.Last++ },
		"entry 15":     func(c *transfer.Contents) { c.Entries = change(c, 15) },
		"one only":     func(c *transfer.Contents) { c.Entries = contents(21).Entries },
		"is in one":    func(c *transfer.Contents) { c.Entries = contents(19).Entries },
	} {
		c := contents(20)
		change(c)
		if err := transfer.Compare(contents(20), c, noProgress); !errors.Is(err, transfer.ErrDiffers) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// change returns c's entries, with another term at index.
func change(c *transfer.Contents, index uint64) func(yield func(*raftpb.Entry, error) bool) {
	old := c.Entries
	return func(yield func(*raftpb.Entry, error) bool) {
		for e, err := range old {
			if e.GetIndex() == index {
				e.Term = new(e.GetTerm() + 1)
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// patch writes p into a file of dir.
func patch(t testing.TB, dir, name string, at int64, p []byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(p, at)
	must(t, errors.Join(err, f.Close()))
}

func number(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// TestDamage: an error names the file and the place.
func TestDamage(t *testing.T) {
	const one, two = "00001.wal", "00002.wal"
	field := func(name string, slot, at int64, v uint64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { patch(t, dir, name, slot*slotBytes+at, number(v)) }
	}
	cut := func(name string, size int64) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, name), size)) }
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, name))) }
	}
	for name, test := range map[string]struct {
		do     func(t *testing.T, dir string)
		file   string
		offset int64
		says   string
	}{
		"cut in the slots":        {cut(two, 5000), two, 5000, "cut short"},
		"cut in the data":         {cut(two, dataStart+32), two, 4 * slotBytes, "not in the data"},
		"cut in an entry":         {cut(two, dataStart+38), two, dataStart + 30, "the file has 4 bytes more (slot 4)"},
		"offset beyond the file":  {field(one, 77, 16, 1<<40), one, 77 * slotBytes, "slot 77: its data is said to be at 1099511627776"},
		"offset with high bit":    {field(one, 77, 16, 1<<63), one, 77 * slotBytes, "not in the data"},
		"offset in the slots":     {field(one, 77, 16, 4096), one, 77 * slotBytes, "not in the data"},
		"offset falls":            {field(one, 77, 16, dataStart), one, 77 * slotBytes, "inside that of an entry before it"},
		"length":                  {func(t *testing.T, dir string) { patch(t, dir, one, dataStart, []byte{255, 0, 0, 0}) }, one, dataStart, "the length of the data is 4278190080"},
		"an index is missing":     {field(one, 77, 8, 90), one, 77 * slotBytes, "entry 90 follows entry 87: the entries between them are missing"},
		"an index comes twice":    {field(one, 77, 8, 87), one, 77 * slotBytes, "entry 87 follows entry 87"},
		"an index falls":          {field(one, 77, 8, 5), one, 77 * slotBytes, "entry 5 follows entry 87"},
		"term 0":                  {field(one, 0, 0, 0), one, 0, "terms start at 1"},
		"term below the snapshot": {field(one, 0, 0, 1), one, 0, "entry 11 has term 1, below 2"},
		"term falls":              {field(two, 0, 0, 9), two, 0, "has term 9, below 32"},
		"type":                    {field(one, 77, 24, 256), one, 77 * slotBytes, "there is no entry type 256"},
		"slot behind the end":     {field(two, 100, 8, 1), two, 100 * slotBytes, "but slot 5 in front of it is empty"},
		"empty slot":              {field(one, 77, 8, 0), one, 78 * slotBytes, "but slot 77 in front of it is empty"},
		"empty first slot":        {field(one, 0, 8, 0), one, 1 * slotBytes, "but slot 0 in front of it is empty"},
		"first file is missing":   {remove(one), two, 0, "entry 30011 is the first behind the snapshot at 10"},
		"another name": {func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, two), filepath.Join(dir, "2.wal")))
		}, "2.wal", 0, "not a name"},
		"wal.meta cut short":   {cut(metaName, 1000), metaName, 1000, "cut short"},
		"hard state's length":  {func(t *testing.T, dir string) { patch(t, dir, metaName, atHardState, []byte{0, 0, 2, 0}) }, metaName, atHardState, "512 bytes; at most 508"},
		"hard state":           {func(t *testing.T, dir string) { patch(t, dir, metaName, atHardState+4, []byte{255, 255}) }, metaName, atHardState + 4, "the hard state cannot be read"},
		"snapshot's length":    {func(t *testing.T, dir string) { patch(t, dir, metaName, atSnapData, []byte{255}) }, metaName, atSnapData, "the length of the snapshot"},
		"snapshot's index":     {func(t *testing.T, dir string) { patch(t, dir, metaName, atSnapshot, number(9)) }, metaName, atSnapshot, "the snapshot is that of entry 10"},
		"key without registry": {func(t *testing.T, dir string) { patch(t, dir, one, atKey, number(1)) }, "", 0, ErrKeyLost.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			dir := write(t, maxSlots+5)
			test.do(t, dir)
			_, err := Open(dir, nil)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("error %v, want %q in it", err, test.says)
			}
			if e := (*mmapwal.CorruptError)(nil); test.file != "" {
				if !errors.As(err, &e) || filepath.Base(e.File) != test.file || e.Offset != test.offset {
					t.Errorf("%v: want %s, offset %d", err, test.file, test.offset)
				}
			}
		})
	}
}

func TestNotDgraph(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(t.TempDir(), nil); !errors.Is(err, ErrNotDgraph) {
		t.Errorf("empty directory: %v", err)
	}
	dir := write(t, 1)
	patch(t, dir, metaName, atUnused, []byte("another program's"))
	if _, err := Open(dir, nil); !errors.Is(err, ErrNotDgraph) || errors.Is(err, ErrOurs) {
		t.Errorf("wal.meta of another program: %v", err)
	}
}

// TestCovered: what the snapshot covers may be anything that rises, and is left out.
func TestCovered(t *testing.T) {
	dir := write(t, 20)
	put := func(k int, index, term uint64) {
		patch(t, dir, "00001.wal", int64(k)*slotBytes, append(append(number(term), number(index)...), number(1<<50)...))
	}
	metaOf := func(index uint64) {
		c := contents(0)
		c.Snapshot.Metadata.Index = &index
		p, err := encodeMeta(c)
		must(t, err)
		patch(t, dir, metaName, 0, p)
	}
	metaOf(25) // entries 11 to 25 are covered
	put(0, 3, 9)
	put(1, 8, 0)
	l, err := Open(dir, nil)
	must(t, err)
	if l.LeftOut != 15 || l.First != 26 || l.Last != 30 || l.Count() != 5 {
		t.Errorf("%d left out, entries from %d to %d", l.LeftOut, l.First, l.Last)
	}
	if l.Commit != 11 || l.HardState.GetCommit() != 25 {
		t.Errorf("commit %d became %d", l.Commit, l.HardState.GetCommit())
	}
	metaOf(200) // all of them
	l, err = Open(dir, nil)
	must(t, err)
	if l.LeftOut != 20 || l.First != 201 || l.Last != 200 || l.HardState.GetCommit() != 200 {
		t.Errorf("%d left out, entries from %d to %d, commit %d", l.LeftOut, l.First, l.Last, l.HardState.GetCommit())
	}
	put(1, 3, 9)
	if _, err := Open(dir, nil); err == nil || !strings.Contains(err.Error(), "entry 3 follows entry 3") {
		t.Errorf("an index that does not rise: %v", err)
	}
}

func TestOffsetZeroIsEmpty(t *testing.T) {
	dir := write(t, 20)
	patch(t, dir, "00001.wal", 5*slotBytes+16, number(0))
	l, err := Open(dir, nil)
	must(t, err)
	for e, err := range l.Entries {
		must(t, err)
		if want := int(e.GetIndex() % 7); e.GetIndex() == 16 && len(e.GetData()) != 0 || e.GetIndex() != 16 && len(e.GetData()) != want {
			t.Errorf("entry %d has %d bytes", e.GetIndex(), len(e.GetData()))
		}
	}
}

func TestCommitBeyondTheEnd(t *testing.T) {
	dir, c := t.TempDir(), contents(3)
	c.HardState.Commit = new(uint64(99))
	must(t, Write(context.Background(), dir, c, noProgress))
	l, err := Open(dir, nil)
	must(t, err)
	if l.Commit != 99 || l.HardState.GetCommit() != 13 {
		t.Errorf("commit %d became %d", l.Commit, l.HardState.GetCommit())
	}
}

// TestLargeSnapshot: Dgraph makes wal.meta longer for one.
func TestLargeSnapshot(t *testing.T) {
	dir, c := write(t, 3), contents(3)
	c.Snapshot.Data = bytes.Repeat([]byte("large"), 1<<19)
	p, err := proto.Marshal(c.Snapshot)
	must(t, err)
	must(t, os.Truncate(filepath.Join(dir, metaName), 4<<20))
	patch(t, dir, metaName, atSnapData, append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...))
	l, err := Open(dir, nil)
	must(t, err)
	must(t, transfer.Compare(c, &l.Contents, noProgress))
}

func TestKeys(t *testing.T) {
	dir, _ := samples.Unpack(t, samples.Encrypted)
	key := []byte(samples.EncryptedKey)
	if _, err := Open(dir, nil); !errors.Is(err, ErrKeyRequired) {
		t.Errorf("no key: %v", err)
	}
	if _, err := Open(dir, key[:16]); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := Open(write(t, 1), key); !errors.Is(err, ErrNotEncrypted) {
		t.Errorf("a key for nothing: %v", err)
	}
	path := filepath.Join(dir, registryName)
	whole, err := os.ReadFile(path)
	must(t, err)
	for name, test := range map[string]struct {
		registry []byte
		file     string
	}{
		"cut in the sanity text": {whole[:20], registryName},
		"cut in a key":           {whole[:len(whole)-1], registryName},
		"changed":                {append(whole[:len(whole)-1:len(whole)-1], 'x'), registryName},
	} {
		must(t, os.WriteFile(path, test.registry, 0o600))
		_, err := Open(dir, key)
		if e := (*mmapwal.CorruptError)(nil); !errors.As(err, &e) || filepath.Base(e.File) != test.file {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, os.WriteFile(path, whole[:28+68], 0o600)) // one key less
	if _, err := Open(dir, key); !errors.Is(err, ErrKeyLost) || !strings.Contains(err.Error(), "00003.wal: the entries are encrypted with data key") {
		t.Errorf("a key is lost: %v", err)
	}
	must(t, os.Remove(path))
	if _, err := Open(dir, nil); !errors.Is(err, ErrKeyLost) || errors.Is(err, ErrKeyRequired) {
		t.Errorf("all keys are lost: %v", err)
	}
}

// ours makes a log of package mmapwal with contents(20), closes it, and returns
// its directory.
func ours(t *testing.T, opts mmapwal.Options) string {
	t.Helper()
	return oursWith(t, opts, contents(20))
}

func oursWith(t *testing.T, opts mmapwal.Options, c *transfer.Contents) string {
	t.Helper()
	dir := t.TempDir()
	opts.Logger = slog.New(slog.DiscardHandler)
	wal, err := mmapwal.Open(dir, &opts)
	must(t, err)
	must(t, wal.Save(nil, nil, c.Snapshot))
	for e := range c.Entries {
		must(t, wal.Save(c.HardState, []*raftpb.Entry{e}, nil))
	}
	for info, v := range []uint64{c.RaftID, c.GroupID, c.Checkpoint} {
		must(t, wal.SetUint(mmapwal.MetaInfo(info), v))
	}
	must(t, wal.Close())
	return dir
}

func TestOurs(t *testing.T) {
	for _, key := range [][]byte{nil, []byte(samples.EncryptedKey)} {
		dir := ours(t, mmapwal.Options{Key: key})
		if _, err := Open(dir, nil); !errors.Is(err, ErrOurs) {
			t.Errorf("error %v", err)
		}
	}
}

// TestOursThenDgraphs: Dgraph has gone on with a log of package mmapwal.
func TestOursThenDgraphs(t *testing.T) {
	dir, c := ours(t, mmapwal.Options{}), contents(21)
	l := &Log{dir: dir}
	must(t, l.findFiles(true))
	f := l.files[0]
	r, err := f.open()
	must(t, err)
	last := decodeSlot(r.slots, 19)
	n, end, err := r.extent(last, 0)
	r.close()
	must(t, err)
	if n != 30%7 {
		t.Fatalf("the last entry has %d bytes", n)
	}
	var slot [slotBytes]byte
	last.index, last.typ, last.offset = 31, 31%3, uint64(end)
	last.encode(slot[:])
	patch(t, dir, filepath.Base(f.path), end, append([]byte{0, 0, 0, 31 % 7}, bytes.Repeat([]byte{31}, 31%7)...))
	patch(t, dir, filepath.Base(f.path), 20*slotBytes, slot[:])

	read, err := Open(dir, nil) // it wrote an entry only
	must(t, err)
	must(t, transfer.Compare(c, &read.Contents, noProgress))

	c.HardState.Commit = new(uint64(12))
	p, err := proto.Marshal(c.HardState)
	must(t, err)
	patch(t, dir, metaName, atHardState, append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...))
	read, err = Open(dir, nil)
	must(t, err)
	must(t, transfer.Compare(c, &read.Contents, noProgress))
}

// TestOursWithSnapshotFile: Dgraph does not know where the snapshot's data is.
func TestOursWithSnapshotFile(t *testing.T) {
	c := contents(20)
	c.Snapshot.Data = make([]byte, 5000)
	dir := oursWith(t, mmapwal.Options{}, c)
	if _, err := Open(dir, nil); !errors.Is(err, ErrOurs) {
		t.Errorf("as it was closed: %v", err)
	}
	patch(t, dir, metaName, 16, number(c.Checkpoint+1)) // Dgraph moves the checkpoint on
	if _, err := Open(dir, nil); err == nil || !strings.Contains(err.Error(), "create a newer snapshot") {
		t.Errorf("used by Dgraph: %v", err)
	}
}

// TestFlips: whatever bytes there are, reading ends with entries or an error.
func TestFlips(t *testing.T) {
	encrypted, _ := samples.Unpack(t, samples.Encrypted)
	for _, dir := range []string{write(t, 50), encrypted, ours(t, mmapwal.Options{})} {
		names, err := os.ReadDir(dir)
		must(t, err)
		seed := uint64(1)
		random := rand.New(rand.NewPCG(seed, seed))
		for round := range 150 {
			back := flip(t, random, filepath.Join(dir, names[random.IntN(len(names))].Name()))
			readAll(t, round, dir)
			if round%10 != 0 { // a few add up
				back()
			}
		}
	}
}

// flip changes a bit, mostly where it matters. back changes it back.
func flip(t *testing.T, random *rand.Rand, path string) (back func()) {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	at := random.Int64N(min(info.Size(), 2000))
	switch random.IntN(5) {
	case 0:
		at = random.Int64N(info.Size())
	case 1:
		at = info.Size() - 1 - random.Int64N(min(info.Size(), 3000))
	case 2:
		at = max(0, min(info.Size(), dataStart)-1-random.Int64N(16))
	}
	p, err := os.ReadFile(path)
	must(t, err)
	old := p[at]
	patch(t, filepath.Dir(path), filepath.Base(path), at, []byte{old ^ 1<<random.IntN(8)})
	return func() { patch(t, filepath.Dir(path), filepath.Base(path), at, []byte{old}) }
}

func readAll(t *testing.T, round int, dir string) {
	t.Helper()
	l, err := Open(dir, []byte(samples.EncryptedKey))
	if errors.Is(err, ErrNotEncrypted) {
		l, err = Open(dir, nil)
	}
	if err != nil {
		return
	}
	count := 0
	for e, err := range l.Entries {
		if err != nil {
			t.Fatalf("round %d: entry %v: %v, though Open found nothing", round, e, err)
		}
		count++
	}
	if count != l.Count() {
		t.Fatalf("round %d: %d entries, not %d", round, count, l.Count())
	}
}
