package metafile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/golden"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"go.etcd.io/raft/v3/raftpb"
)

func TestCreateAndOpen(t *testing.T) {
	dir := created(t)
	f := open(t, dir)
	wantMeta(t, f.Meta(), metaOf(t, 1))
	if f.Sequence() != 1 || len(f.Damaged()) != 0 {
		t.Errorf("sequence %d, damaged %v", f.Sequence(), f.Damaged())
	}
	_, err := Open(vfs.OS(), dir, false)
	wantErr(t, err, vfs.ErrLocked)
	must(t, f.Close())
	entries, err := os.ReadDir(dir)
	must(t, err)
	if len(entries) != 1 || entries[0].Name() != Name {
		t.Errorf("the directory holds %v", entries)
	}
}

func TestCommitAndNote(t *testing.T) {
	dir := created(t)
	stores := []struct {
		name  string
		store func(*File, Meta) error
		pages []int // that hold the newest after it
	}{
		{"commit", (*File).Commit, []int{0, 1}},
		{"note", (*File).Note, []int{2}},
		{"note", (*File).Note, []int{3}},
		{"note", (*File).Note, []int{2}},
		{"commit", (*File).Commit, []int{0, 1}},
		{"note", (*File).Note, []int{3}},
		{"clean", (*File).CommitClean, []int{0, 1}},
	}
	for _, reopen := range []bool{false, true} {
		f := open(t, dir)
		for i, s := range stores {
			want := metaOf(t, uint64(i)+10)
			must(t, s.store(f, want))
			want.Clean = s.name == "clean"
			wantMeta(t, f.Meta(), want)
			if reopen {
				must(t, f.Close())
				f = open(t, dir)
				wantMeta(t, f.Meta(), want)
			}
			if got := holders(t, dir, f.Sequence()); !slices.Equal(got, s.pages) {
				t.Errorf("store %d, %s: in the pages %v, want %v", i, s.name, got, s.pages)
			}
		}
		must(t, f.Close())
		edit(t, dir, func(c []byte) []byte { clear(c[2*page.Size:]); return c })
	}
}

// holders returns the pages that have the sequence number.
func holders(t testing.TB, dir string, sequence uint64) (pages []int) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, Name))
	must(t, err)
	for i := range pageCount {
		if m, err := Decode(pageOf(content, i)); err == nil && m.sequence == sequence {
			pages = append(pages, i)
		}
	}
	return pages
}

func TestNewestPageWins(t *testing.T) {
	for newest := range pageCount {
		dir := created(t)
		edit(t, dir, func(content []byte) []byte {
			for i := range pageCount {
				m := metaOf(t, uint64(i)+10)
				m.sequence = uint64(i) + 10
				if i == newest {
					m.sequence = 100
				}
				m.Encode(pageOf(content, i), nil)
			}
			return content
		})
		wantMeta(t, read(t, dir), metaOf(t, uint64(newest)+10))
	}
}

// filled returns a directory whose four pages are all in use: metaOf(2) in 0 and
// 1, metaOf(3) in 2, and metaOf(4), the newest, in 3.
func filled(t testing.TB) string {
	dir := created(t)
	f := open(t, dir)
	must(t, f.Commit(metaOf(t, 2)))
	must(t, f.Note(metaOf(t, 3)))
	must(t, f.Note(metaOf(t, 4)))
	must(t, f.Close())
	return dir
}

func TestDamagedPageHealed(t *testing.T) {
	tests := []struct {
		damaged []int
		want    uint64
	}{
		{[]int{0}, 4}, {[]int{1}, 4}, {[]int{2}, 4}, {[]int{3}, 3}, {[]int{2, 3}, 2}, {[]int{0, 2, 3}, 2}, {[]int{1, 2, 3}, 2},
	}
	for _, test := range tests {
		dir := filled(t)
		damage(t, dir, test.damaged...)
		f := open(t, dir)
		wantMeta(t, f.Meta(), metaOf(t, test.want))
		if !slices.Equal(f.Damaged(), test.damaged) {
			t.Errorf("damaged %v, want %v", f.Damaged(), test.damaged)
		}
		must(t, f.Restore())
		must(t, f.Commit(metaOf(t, 5)))
		must(t, f.Close())
		for _, lost := range []int{0, 1} { // each is whole without the other
			damage(t, dir, lost)
			wantMeta(t, read(t, dir), metaOf(t, 5))
			damage(t, dir, lost) // undo
		}
	}
}

// TestCommitBesideDamage: as long as one of pages 0 and 1 is damaged, the first
// store must not go to the other.
func TestCommitBesideDamage(t *testing.T) {
	for _, damaged := range []int{0, 1} {
		dir := created(t)
		damage(t, dir, damaged)
		f := open(t, dir)
		content, err := os.ReadFile(filepath.Join(dir, Name))
		must(t, err)
		whole := slices.Clone(pageOf(content, 1-damaged))
		f.file = &oneStore{File: f.file}
		if err := f.Commit(metaOf(t, 2)); err == nil {
			t.Error("the second store did not fail")
		}
		content, err = os.ReadFile(filepath.Join(dir, Name))
		must(t, err)
		if diff := golden.Diff(pageOf(content, 1-damaged), whole); diff != "" {
			t.Errorf("page %d was damaged, page %d was written first: %s", damaged, 1-damaged, diff)
		}
		must(t, f.Close())
	}
}

type oneStore struct {
	vfs.File
	stores int
}

func (f *oneStore) WriteAt(p []byte, off int64) (int, error) {
	if f.stores++; f.stores > 1 {
		return 0, errors.New("no more stores")
	}
	return f.File.WriteAt(p, off)
}

func TestBothLost(t *testing.T) {
	ways := map[string]func(p []byte){
		"flipped": func(p []byte) { p[atRaftID] ^= 1 },
		"zeroed":  func(p []byte) { clear(p) },
		"torn":    func(p []byte) { clear(p[512:]) },
	}
	for name, way := range ways {
		dir := filled(t)
		edit(t, dir, func(c []byte) []byte { way(pageOf(c, 0)); way(pageOf(c, 1)); return c })
		e := wantCorrupt(t, openErr(t, dir))
		if e.File != filepath.Join(dir, Name) || !strings.Contains(e.Reason, "term, vote and snapshot") {
			t.Errorf("%s: %v", name, e)
		}
	}
}

// TestPage0AgainstCleanPage1: whatever byte of page 0 of a log that was closed is flipped, it is
// healed from page 1, unless the page reads as what Dgraph makes of it.
func TestPage0AgainstCleanPage1(t *testing.T) {
	dir := created(t)
	f := open(t, dir)
	must(t, f.CommitClean(metaOf(t, 2)))
	must(t, f.Close())
	want := metaOf(t, 2)
	want.Clean = true
	wantMeta(t, read(t, dir), want)
	whole, err := os.ReadFile(filepath.Join(dir, Name))
	must(t, err)
	used, refused := int(page.Order.Uint32(whole[atUsed:])), 0
	for at := range used {
		content, bit := slices.Clone(whole), at%8
		content[at] ^= 1 << bit
		must(t, os.WriteFile(filepath.Join(dir, Name), content, 0o600))
		f, err := Open(vfs.OS(), dir, true)
		if err != nil {
			if e := wantCorrupt(t, err); !strings.Contains(e.Reason, "import --from dgraph") || at < atCheckpoint || at >= oursBegin && at < oursEnd || at >= atHardState+40 && at < atSnapshot || at >= atSnapshotData {
				t.Fatalf("bit %d of byte %d: %v", bit, at, err)
			}
			refused++
			continue
		}
		if !slices.Equal(f.Damaged(), []int{0}) {
			t.Fatalf("bit %d of byte %d: damaged %v", bit, at, f.Damaged())
		}
		wantMeta(t, f.Meta(), want)
		must(t, f.Close())
	}
	if refused == 0 || refused > 30 {
		t.Errorf("%d of %d flips read as Dgraph's", refused, used)
	}
	must(t, os.WriteFile(filepath.Join(dir, Name), whole, 0o600))
	damage(t, dir, 1)
	if f := open(t, dir); !slices.Equal(f.Damaged(), []int{1}) {
		t.Errorf("damaged %v, want 1", f.Damaged())
	}
}

// TestWrittenByDgraph: what Dgraph stores to page 0 of a log that was closed is told from damage.
func TestWrittenByDgraph(t *testing.T) {
	was := metaOf(t, 2)
	was.Clean = true
	var twin [page.Size]byte
	was.Encode(twin[:], nil)
	hard := func(p []byte, term, vote, commit uint64) {
		(&HardState{Term: term, Vote: vote, Commit: commit, Stored: true}).encode(p[atHardState:atSnapshot])
	}
	snapshot := func(p []byte, index, term uint64) {
		var m Meta
		must(t, m.SetSnapshot(&raftpb.Snapshot{Data: []byte("state"), Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term}}, false))
		page.Order.PutUint64(p[atSnapshot:], index)
		page.Order.PutUint64(p[atSnapshot+8:], term)
		page.Order.PutUint32(p[atSnapshot+16:], uint32(len(m.snapshot)))
		copy(p[atSnapshotData:], m.snapshot)
	}
	h, s := was.HardState, was.Snapshot
	for name, test := range map[string]struct {
		write func(p []byte)
		want  bool
	}{
		"a later term":       {func(p []byte) { hard(p, h.Term+1, 3, h.Commit) }, true},
		"a later commit":     {func(p []byte) { hard(p, h.Term, h.Vote, h.Commit+9) }, true},
		"a later checkpoint": {func(p []byte) { page.Order.PutUint64(p[atCheckpoint:], was.Checkpoint+1) }, true},
		"a later snapshot":   {func(p []byte) { snapshot(p, s.Index+5, s.Term) }, true},
		"an earlier term":    {func(p []byte) { hard(p, h.Term-1, h.Vote, h.Commit) }, false},
		"an earlier commit":  {func(p []byte) { hard(p, h.Term, h.Vote, h.Commit-1) }, false},
		"another Raft ID":    {func(p []byte) { page.Order.PutUint64(p, was.RaftID+1) }, false},
		"a snapshot changed": {func(p []byte) { p[atSnapshotData+3] ^= 1 }, false},
		"zeros":              {func(p []byte) { clear(p) }, false},
		"our part":           {func(p []byte) { p[atCompacted] ^= 1 }, false},
	} {
		p := twin
		test.write(p[:])
		if got := WrittenByDgraph(p[:], twin[:]); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNewerVersion(t *testing.T) {
	for i := range pageCount {
		dir := filled(t)
		edit(t, dir, func(c []byte) []byte {
			page.Order.PutUint32(pageOf(c, i)[atVersion:], Version+1)
			reseal(pageOf(c, i))
			return c
		})
		wantErr(t, openErr(t, dir), ErrVersion)
	}
}

func TestDgraphFiles(t *testing.T) {
	written := golden.Read(t, "testdata/dgraph.hex", 1<<20)
	large := slices.Clone(written) // a snapshot that fills most of the file
	page.Order.PutUint32(large[atSnapshot+16:], 900_000)
	for i := range 900_000 {
		large[atSnapshotData+i] = byte(i)
	}
	tests := map[string][]byte{
		"a hard state":     written,
		"a large snapshot": large,
		"nothing yet":      make([]byte, 1<<20),
		"cut to a page":    written[:page.Size],
		"cut in a page":    written[:2000],
	}
	for name, content := range tests {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, Name), content, 0o600))
		for _, readOnly := range []bool{true, false} {
			if _, err := Open(vfs.OS(), dir, readOnly); !errors.Is(err, ErrDgraph) {
				t.Errorf("%s: error %v, want %v", name, err, ErrDgraph)
			}
		}
	}
}

func TestForeignAndShortFiles(t *testing.T) {
	ours := func(n int) []byte {
		content := make([]byte, fileSize)
		m := metaOf(t, 1)
		m.Encode(content, nil)
		m.Encode(content[page.Size:], nil)
		return content[:n]
	}
	text := []byte(strings.Repeat("some text ", 2000))
	tests := []struct {
		name    string
		content []byte
		want    error // nil: a *corrupt.Error
	}{
		{"text", text, ErrForeign},
		{"short text", text[:100], ErrForeign},
		{"text of a page", text[:page.Size], ErrForeign},
		{"empty", nil, nil},
		{"zeroed", make([]byte, fileSize), nil},
		{"cut in page 0", ours(2000), nil},
		{"cut behind the magic number", ours(100), nil},
		{"cut in front of it", ours(20), ErrForeign}, // too little to know
		{"page 0 only", ours(page.Size), nil},
		{"half", ours(fileSize / 2), nil},
		{"one byte missing", ours(fileSize - 1), nil},
	}
	for _, test := range tests {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, Name), test.content, 0o600))
		err := openErr(t, dir)
		if test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: error %v, want %v", test.name, err, test.want)
		}
		if test.want == nil {
			wantCorrupt(t, err)
		}
	}
	_, err := Open(vfs.OS(), t.TempDir(), false)
	wantErr(t, err, fs.ErrNotExist)
}

func TestCreateBesideOthers(t *testing.T) {
	t.Run("exists", func(t *testing.T) {
		dir := created(t)
		wantErr(t, Create(vfs.OS(), dir, metaOf(t, 2), nil, nil), fs.ErrExist)
		wantMeta(t, read(t, dir), metaOf(t, 1))
		wantNoTemporary(t, dir)
	})
	t.Run("left over", func(t *testing.T) {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, TemporaryName), make([]byte, 3*fileSize), 0o600))
		must(t, Create(vfs.OS(), dir, metaOf(t, 2), nil, nil))
		wantMeta(t, read(t, dir), metaOf(t, 2))
		wantNoTemporary(t, dir)
	})
	t.Run("another creates", func(t *testing.T) {
		dir := t.TempDir()
		other, err := vfs.OS().Create(filepath.Join(dir, TemporaryName))
		must(t, err)
		must(t, other.Lock())
		wantErr(t, Create(vfs.OS(), dir, metaOf(t, 2), nil, nil), vfs.ErrLocked)
		_, err = os.Stat(filepath.Join(dir, TemporaryName))
		must(t, err) // still there
		must(t, other.Close())
		must(t, Create(vfs.OS(), dir, metaOf(t, 2), nil, nil))
	})
	t.Run("no directory", func(t *testing.T) {
		wantErr(t, Create(vfs.OS(), filepath.Join(t.TempDir(), "none"), metaOf(t, 2), nil, nil), fs.ErrNotExist)
	})
}

func wantNoTemporary(t testing.TB, dir string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, TemporaryName)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary name: %v", err)
	}
}

func TestRefresh(t *testing.T) {
	dir := created(t)
	owner := open(t, dir)
	reader, err := Open(vfs.OS(), dir, true)
	must(t, err)
	defer reader.Close()
	must(t, owner.Note(metaOf(t, 2)))
	wantMeta(t, reader.Meta(), metaOf(t, 1))
	must(t, reader.Refresh())
	wantMeta(t, reader.Meta(), metaOf(t, 2))
	wantErr(t, reader.Note(metaOf(t, 3)), syscall.EBADF)
}

func TestFileCutUnderneath(t *testing.T) {
	dir := created(t)
	f := open(t, dir)
	must(t, os.Truncate(filepath.Join(dir, Name), 0))
	for _, err := range []error{f.Refresh(), f.Restore(), f.Commit(metaOf(t, 2)), f.Note(metaOf(t, 2))} {
		if e := wantCorrupt(t, err); !strings.Contains(e.Reason, "cut short") {
			t.Errorf("error %v", err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, Name))
	must(t, err)
	if info.Size() != 0 {
		t.Errorf("the file is made longer again, to %d bytes", info.Size())
	}
}

func TestNoteDoesNotAllocate(t *testing.T) {
	f := open(t, created(t))
	m := metaOf(t, 2)
	allocs := testing.AllocsPerRun(100, func() {
		m.HardState.Commit++
		if err := f.Note(m); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
