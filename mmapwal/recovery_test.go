package mmapwal_test

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// testLogUnclean makes a log of entries 1 to n of one file, and returns a copy
// as a crash leaves it. Of its entries those up to synced are known durable.
func testLogUnclean(t testing.TB, synced, n uint64) string {
	t.Helper()
	dir := t.TempDir()
	d := testLogOpen(t, dir, testLogNoSync)
	if synced > 0 {
		testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, synced, 1, 100))
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	testLogSave(t, d, testLogHard(1, 1, n), testLogEntries(synced+1, n, 1, 100))
	dir = testLogCopyDir(t, dir)
	testLogClose(t, d)
	return dir
}

func testLogRange(t testing.TB, d *mmapwal.DiskStorage, first, last uint64) {
	t.Helper()
	gotFirst, err1 := d.FirstIndex()
	gotLast, err2 := d.LastIndex()
	if err1 != nil || err2 != nil || gotFirst != first || gotLast != last {
		t.Fatalf("entries %d to %d, %v, %v; want %d to %d", gotFirst, gotLast, err1, err2, first, last)
	}
	if last < first {
		return
	}
	es, err := d.Entries(first, last+1, math.MaxUint64)
	if err != nil || uint64(len(es)) != last-first+1 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	for _, e := range es {
		if want := oracle.Data(e.GetIndex(), e.GetTerm(), len(e.GetData())); string(e.GetData()) != string(want) {
			t.Fatalf("entry %d, term %d has other data", e.GetIndex(), e.GetTerm())
		}
	}
}

// TestTornTail: what was never promised is dropped, and told.
func TestTornTail(t *testing.T) {
	for _, at := range []int64{0, 5, 10, 20, 26, 31, 40, 100} { // in the record of entry 8
		dir := testLogUnclean(t, 5, 10)
		name := filepath.Join(dir, "00001.wal")
		record, end := testLogRecords(t, name)[8], testLogRecordsEnd(t, name)
		testLogFlip(t, name, record+at)
		d := testLogOpen(t, dir)
		testLogRange(t, d, 1, 7)
		r := d.Stats().Recovery
		if r.Clean || r.FilesScanned != 1 || r.TornBytes <= end-record-8 || r.TornBytes > end-record {
			t.Errorf("byte %d: recovery %+v, %d bytes torn", at, r, end-record)
		}
		if h, _ := d.HardState(); h.GetCommit() != 1 { // that of 10 was stored behind entry 10
			t.Errorf("byte %d: commit %d, want 1", at, h.GetCommit())
		}
		testLogUsable(t, d, dir)
	}
}

// TestTailCutOff: blocks that never reached the disk read as zeros.
func TestTailCutOff(t *testing.T) {
	dir := testLogUnclean(t, 5, 10)
	name := filepath.Join(dir, "00001.wal")
	record := testLogRecords(t, name)[8]
	testLogEdit(t, name, func(content []byte) []byte {
		clear(content[record+20:])
		return content
	})
	d := testLogOpen(t, dir)
	testLogRange(t, d, 1, 7)
	testLogUsable(t, d, dir)
}

// TestDamageBelowDurableEnd: what was promised is not dropped in silence.
func TestDamageBelowDurableEnd(t *testing.T) {
	for _, index := range []uint64{1, 3, 5} {
		dir := testLogUnclean(t, 5, 10)
		name := filepath.Join(dir, "00001.wal")
		record := testLogRecords(t, name)[index]
		testLogFlip(t, name, record+50)
		testLogWriteFile(t, filepath.Join(dir, "00009.wal.tmp"), []byte("left over"))
		before := testLogDirState(t, dir)
		_, err := mmapwal.Open(dir, testLogOptions())
		damage := testLogCorrupt(t, err, name)
		if damage.Offset != record || index > 1 && damage.First != index {
			t.Errorf("damage of entry %d at %d is told as %+v", index, record, damage)
		}
		testLogSame(t, "files", testLogDirState(t, dir), before)
	}
}

// TestWitness: under HardSync a later record tells that an earlier one had been
// synced, even if wal.meta has forgotten.
func TestWitness(t *testing.T) {
	dir := t.TempDir()
	live := testLogOpen(t, dir)
	early := testLogCopyDir(t, dir)
	for i := uint64(1); i <= 5; i++ {
		testLogSave(t, live, nil, testLogEntries(i, i, 1, 100))
	}
	dir = testLogCopyDir(t, dir)
	testLogCopyFile(t, filepath.Join(early, "wal.meta"), filepath.Join(dir, "wal.meta"))
	name := filepath.Join(dir, "00001.wal")
	testLogFlip(t, name, testLogRecords(t, name)[3]+40)
	_, err := mmapwal.Open(dir, testLogOptions())
	if damage := testLogCorrupt(t, err, name); damage.First != 3 {
		t.Errorf("damage %+v, want entry 3", damage)
	}
}

// TestUncleanTailIsSealed: the tail ends for good and a new file begins; an
// empty one is not multiplied.
func TestUncleanTailIsSealed(t *testing.T) {
	dir := testLogUnclean(t, 5, 10)
	for range 5 {
		d := testLogOpen(t, dir)
		testLogRange(t, d, 1, 10)
		next := testLogCopyDir(t, dir)
		testLogClose(t, d)
		dir = next
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "*")); len(names) != 3 {
		t.Fatalf("files %v, want wal.meta, a sealed file and a tail", names)
	}
	d := testLogOpen(t, dir)
	if d.NumLogFiles() != 1 || filepath.Base(testLogLastFile(t, dir)) == "00001.wal" {
		t.Errorf("%d files, the last is %s", d.NumLogFiles(), testLogLastFile(t, dir))
	}
	testLogUsable(t, d, dir)
}

// TestEmptyTailRemovedTwice: an Open that dies between the removal of an empty
// tail and the store of wal.meta is no loss.
func TestEmptyTailRemovedTwice(t *testing.T) {
	dir := t.TempDir()
	live := testLogOpen(t, dir)
	if err := live.Sync(); err != nil { // wal.meta names the empty tail
		t.Fatal(err)
	}
	dir = testLogCopyDir(t, dir)
	removed := false
	fsys := vfstest.New(vfs.OS(), func(op vfstest.Op, name string) error {
		removed = removed || op == vfstest.OpRemove
		if removed && op != vfstest.OpRemove {
			return vfstest.Error(op, name, syscall.EIO)
		}
		return nil
	})
	if _, err := mmapwal.Open(dir, testLogOptions(testLogOn(fsys))); err == nil {
		t.Fatal("the open was not interrupted")
	}
	d := testLogOpen(t, dir)
	testLogUsable(t, d, dir)
}

// TestCleanTailContinues: a clean open goes on in the same file.
func TestCleanTailContinues(t *testing.T) {
	dir := t.TempDir()
	for i := uint64(1); i <= 5; i++ {
		d := testLogOpen(t, dir)
		testLogSave(t, d, testLogHard(1, 1, i), testLogEntries(i, i, 1, 100))
		testLogRange(t, d, 1, i)
		testLogClose(t, d)
	}
	if last := testLogLastFile(t, dir); filepath.Base(last) != "00001.wal" {
		t.Errorf("the last file is %s", last)
	}
}

// TestFlippedBitInSealedFile: only reads that meet the damage tell of it.
func TestFlippedBitInSealedFile(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	name := filepath.Join(dir, "00001.wal")
	record := testLogRecords(t, name)[3]
	testLogFlip(t, name, record+1000)
	d := testLogOpen(t, dir)
	_, err := d.Entries(1, 25, math.MaxUint64)
	if damage := testLogCorrupt(t, err, name); damage.First != 3 || damage.Last != 3 || damage.Offset != record {
		t.Errorf("damage %+v, want entry 3 at %d", damage, record)
	}
	for _, r := range [][2]uint64{{1, 3}, {4, 25}} {
		if es, err := d.Entries(r[0], r[1], math.MaxUint64); err != nil || uint64(len(es)) != r[1]-r[0] {
			t.Errorf("entries %v: %d, %v", r, len(es), err)
		}
	}
	if term, err := d.Term(3); term != 1 || err != nil {
		t.Errorf("term %d, %v", term, err)
	}
	testLogSave(t, d, nil, testLogEntries(3, 3, 2, 10)) // fetched from another node
	testLogRange(t, d, 1, 3)
	testLogUsable(t, d, dir)
}

// TestWipedSlots: slots are rebuilt from the records, in a sealed file and in
// the tail.
func TestWipedSlots(t *testing.T) {
	for _, file := range []string{"00001.wal", "00002.wal", "00003.wal"} {
		dir := t.TempDir()
		testLogThreeFiles(t, dir)
		want := testLogContentOf(t, dir)
		testLogEdit(t, filepath.Join(dir, file), func(content []byte) []byte {
			clear(content[:960_000])
			return content
		})
		d := testLogOpen(t, dir)
		testLogSame(t, file, testLogContent(t, d), want)
		if file != "00003.wal" && d.Stats().HealedFiles != 1 {
			t.Errorf("%s: %d files healed", file, d.Stats().HealedFiles)
		}
		testLogClose(t, d)
		d = testLogOpen(t, dir)
		testLogSame(t, file, testLogContent(t, d), want)
		if s := d.Stats(); s.HealedFiles != 0 || s.Recovery.FilesScanned != 0 {
			t.Errorf("%s is still to be healed after a close", file)
		}
		testLogUsable(t, d, dir)
	}
}

// TestClearedStaysCleared: data that was cleared cannot be read until it is
// written anew; a Save that fails on the way changes nothing about that.
func TestClearedStaysCleared(t *testing.T) {
	t.Run("sealed file", func(t *testing.T) { testLogClearAndFail(t, 8, 5) })
	t.Run("tail", func(t *testing.T) { testLogClearAndFail(t, 24, 21) })
}

// testLogClearAndFail clears the data below an index, and lets a Save from
// another index on fail before it has stored an entry.
func testLogClearAndFail(t *testing.T, below, from uint64) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	var disk vfstest.Switch
	d := testLogOpen(t, dir, testLogOn(vfstest.New(vfs.OS(), disk.Before)))
	if err := d.ClearBelow(below); err != nil {
		t.Fatal(err)
	}
	disk.Set(func(op vfstest.Op, name string) error {
		if op != vfstest.OpWrite || filepath.Base(name) == "wal.meta" {
			return nil
		}
		return vfstest.Error(op, name, syscall.EIO)
	})
	if err := d.Save(nil, testLogEntries(from, from+1, 2, 10), nil); err == nil {
		t.Fatal("the save was not interrupted")
	}
	disk.Set(nil)
	testLogClearedBelow(t, d, below)
	_ = d.Close()
	testLogClearedBelow(t, testLogOpen(t, dir), below)
}

// TestClearedAndWrittenAnew: entries that are written anew have their data until
// they are cleared in turn, also after a crash.
func TestClearedAndWrittenAnew(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	d := testLogOpen(t, dir)
	for _, step := range []struct{ until, from, to, cleared uint64 }{
		{until: 24, from: 21, to: 23, cleared: 21},
		{until: 22, from: 24, to: 24, cleared: 22},
		{until: 10, from: 5, to: 8, cleared: 5}, // in a sealed file; 10 is cleared already
		{until: 7, from: 9, to: 9, cleared: 7},
	} {
		if err := d.ClearBelow(step.until); err != nil {
			t.Fatal(err)
		}
		testLogSave(t, d, nil, testLogEntries(step.from, step.to, 2, 10))
		testLogClearedBelow(t, d, step.cleared)
		dir = testLogCopyDir(t, dir)
		testLogClose(t, d)
		d = testLogOpen(t, dir)
		testLogClearedBelow(t, d, step.cleared)
	}
}

func testLogClearedBelow(t *testing.T, d *mmapwal.DiskStorage, below uint64) {
	t.Helper()
	last, err := d.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	es, err := oracle.Entries(d, 1, last+1)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if cleared := len(e.GetData()) == 0; cleared != (e.GetIndex() < below) {
			t.Errorf("entry %d has %d bytes", e.GetIndex(), len(e.GetData()))
		}
	}
}

// testLogDamage is a damage that KeepValidPrefix gets over.
type testLogDamage struct {
	name   string
	damage func(t *testing.T, dir string)
	keeps  uint64 // last index afterwards
	aside  int    // files put aside
}

func testLogFlipRecord(file string, index uint64) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		name := filepath.Join(dir, file)
		testLogFlip(t, name, testLogRecords(t, name)[index]+100)
	}
}

// testLogDamages damages a log whose files hold entries 1 to 9, 10 to 18, and 19
// to 24.
func testLogDamages() []testLogDamage {
	return []testLogDamage{
		{"tail", testLogFlipRecord("00003.wal", 21), 20, 1},
		{"first record of the tail", testLogFlipRecord("00003.wal", 19), 18, 1},
		{"first file", testLogFlipRecord("00001.wal", 4), 3, 3},
		{"first record", testLogFlipRecord("00001.wal", 1), 0, 3},
		{"middle file", testLogFlipRecord("00002.wal", 12), 11, 2},
		{"last record of a sealed file", testLogFlipRecord("00002.wal", 18), 17, 2},
		{"header of the middle file", testLogLoseHeader("00002.wal"), 9, 2},
		{"header of the tail", testLogLoseHeader("00003.wal"), 18, 1},
		{"middle file missing", testLogRemove("00002.wal"), 9, 1},
		{"middle file cut", testLogCut("00002.wal", 1<<20+4096), 9, 2},
		{"last file missing", testLogRemove("00003.wal"), 18, 0},
		{"middle file of another log", testLogOfAnother("00002.wal"), 9, 2},
	}
}

// TestKeepValidPrefix keeps what is in front of the damage, and all that is cut
// off under other names. FailClosed notices the same damage, at Open or when it
// is read, and goes on refusing nothing once it is gone.
func TestKeepValidPrefix(t *testing.T) {
	for _, clean := range []string{"clean", "unclean"} {
		for _, c := range testLogDamages() {
			t.Run(clean+"/"+c.name, func(t *testing.T) { testLogKeep(t, clean == "clean", c) })
		}
	}
}

func testLogKeep(t *testing.T, clean bool, c testLogDamage) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	if !clean {
		testLogPages(t, filepath.Join(dir, "wal.meta"), func(p []byte) { p[39] &^= 1 })
	}
	c.damage(t, dir)
	testLogNoticed(t, testLogCopyDir(t, dir))
	d := testLogOpen(t, dir, testLogKeepPrefix)
	testLogRange(t, d, 1, c.keeps)
	aside := d.Stats().Recovery.SetAside
	if len(aside) != c.aside {
		t.Errorf("put aside: %v, want %d", aside, c.aside)
	}
	if h, _ := d.HardState(); h.GetCommit() > c.keeps {
		t.Errorf("commit %d beyond the log's end %d", h.GetCommit(), c.keeps)
	}
	testLogSave(t, d, testLogHard(2, 1, c.keeps), testLogEntries(c.keeps+1, c.keeps+30, 2, 110_000))
	testLogRange(t, d, 1, c.keeps+30)
	testLogClose(t, d)
	d = testLogOpen(t, dir)
	testLogRange(t, d, 1, c.keeps+30)
	testLogUsable(t, d, dir)
	testLogClose(t, testLogOpen(t, dir, testLogKeepPrefix))
	for _, name := range aside {
		if !strings.HasSuffix(name, ".corrupt") || !testLogExists(name) {
			t.Errorf("%s is not kept", name)
		}
	}
}

// testLogNoticed checks that FailClosed hides no damage in dir.
func testLogNoticed(t *testing.T, dir string) {
	t.Helper()
	d, err := mmapwal.Open(dir, testLogOptions())
	if err == nil {
		defer func() { _ = d.Close() }()
		_, err = d.Entries(1, 25, math.MaxUint64)
	}
	testLogIs(t, err, mmapwal.ErrCorrupt)
}

// TestWithoutFallocate: where the file system cannot reserve blocks, recovery leaves what is
// stored as it is, and so does all else.
func TestWithoutFallocate(t *testing.T) {
	plain := testLogOn(vfs.Plain())
	for name, edit := range map[string]func(*mmapwal.Options){
		"HardSync": func(*mmapwal.Options) {}, "NoSync": testLogNoSync, "encrypted": testLogEncrypted, "KeepValidPrefix": testLogKeepPrefix,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := testLogBase(t, dir, plain, edit)
			for range 3 {
				last, err := d.LastIndex()
				if err != nil {
					t.Fatal(err)
				}
				testLogSave(t, d, testLogHard(4, 1, last), testLogEntries(last+1, last+8, 4, 60_000)) // over the borders of files
				want := testLogContent(t, d)
				d.WaitForBackground() // which may be making a file
				killed := testLogCopyDir(t, dir)
				testLogClose(t, d)
				d = testLogOpen(t, killed, plain, edit)
				testLogSame(t, "killed", testLogContent(t, d), want)
				dir = killed
			}
			want := testLogContent(t, d)
			testLogClose(t, d)
			testLogSame(t, "closed", testLogContent(t, testLogOpen(t, dir, plain, edit)), want)
		})
	}
}

// TestLostHeaderPage: the header page of a sealed file that does not count is lost. The next
// Open for writing makes two of one again, and says so; then the other one may be lost.
func TestLostHeaderPage(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := t.TempDir()
		testLogThreeFiles(t, dir)
		if !clean {
			testLogPages(t, filepath.Join(dir, "wal.meta"), func(p []byte) { p[39] &^= 1 })
		}
		want := testLogContentOf(t, dir)
		for _, name := range []string{"00001.wal", "00002.wal"} {
			for k, at := range entryfile.HeaderPages { // the second time the one that was healed counts
				testLogFlip(t, filepath.Join(dir, name), at+100)
				if got := testLogContentOf(t, dir); got != want {
					t.Errorf("%s, page %d lost: other content", name, k)
				}
				d := testLogOpen(t, dir)
				if n := d.Stats().Recovery.HealedPages; n != 1 {
					t.Errorf("%s, page %d lost: %d pages healed", name, k, n)
				}
				testLogSame(t, name, testLogContent(t, d), want)
				testLogClose(t, d)
				d = testLogOpen(t, dir)
				if n := d.Stats().Recovery.HealedPages; n != 0 {
					t.Errorf("%s, page %d healed: %d pages healed again", name, k, n)
				}
				testLogClose(t, d)
			}
		}
		testLogUsable(t, testLogOpen(t, dir), dir)
	}
}

// TestLostVolatilePage: a page of wal.meta that needs no sync is lost once only.
func TestLostVolatilePage(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	for commit := range uint64(3) {
		testLogSave(t, d, testLogHard(1, 1, commit), testLogEntries(commit+1, commit+1, 1, 10))
	}
	testLogClose(t, d)
	testLogFlip(t, filepath.Join(dir, "wal.meta"), 2*page.Size+520)
	testLogFlip(t, filepath.Join(dir, "wal.meta"), 3*page.Size+520)
	for _, want := range []int{2, 0} {
		d := testLogOpen(t, dir)
		if n := d.Stats().Recovery.HealedPages; n != want {
			t.Errorf("%d pages healed, want %d", n, want)
		}
		testLogClose(t, d)
	}
}

// TestFileOfAnotherTime: a file behind the one that a clean log ended in is
// refused, or put aside, however well it continues the log.
func TestFileOfAnotherTime(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	later := testLogCopyDir(t, dir)
	d := testLogOpen(t, later)
	testLogSave(t, d, nil, testLogEntries(25, 34, 1, 110_000))
	testLogClose(t, d)
	testLogCopyFile(t, filepath.Join(later, "00003.wal"), filepath.Join(dir, "00003.wal"))
	testLogCopyFile(t, filepath.Join(later, "00004.wal"), filepath.Join(dir, "00004.wal"))
	_, err := mmapwal.Open(dir, testLogOptions())
	testLogCorrupt(t, err, filepath.Join(dir, "00004.wal"))
	d = testLogOpen(t, dir, testLogKeepPrefix)
	if aside := d.Stats().Recovery.SetAside; !slices.Contains(aside, filepath.Join(dir, "00004.wal.corrupt")) {
		t.Errorf("put aside: %v", aside)
	}
	testLogUsable(t, d, dir)
}

// TestClearedIsDurable: clearing makes durable what stands in front of the place up to which
// data is cleared, under NoSync, too: what is written anew is not taken for cleared.
func TestClearedIsDurable(t *testing.T) {
	seed := testLogSeed(t)
	for k := range uint64(40) {
		disk := simdisk.New()
		if err := disk.MkdirAll("/log"); err != nil {
			t.Fatal(err)
		}
		d := testLogOpen(t, "/log", testLogOn(disk), testLogNoSync)
		testLogSave(t, d, nil, testLogEntries(1, 5, 1, 3000))
		if err := d.ClearBelow(6); err != nil {
			t.Fatal(err)
		}
		image := disk.Crash(rand.New(rand.NewPCG(seed, k)))
		full := vfstest.New(image, vfstest.FailFrom(1, syscall.ENOSPC, vfstest.OpCreate))
		testLogClose(t, testLogOpen(t, "/log", testLogOn(full))) // removes the empty file, and makes none
		d = testLogOpen(t, "/log", testLogOn(image))
		last, _ := d.LastIndex()
		if last != 5 {
			t.Fatalf("image %d: the log ends at %d", k, last)
		}
		testLogSave(t, d, nil, testLogEntries(last+1, last+5, 1, 3000))
		es, err := d.Entries(last+1, last+6, math.MaxUint64)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			if len(e.GetData()) != 3000 {
				t.Fatalf("image %d: entry %d has %d bytes of data", k, e.GetIndex(), len(e.GetData()))
			}
		}
	}
}

// TestReadsBesideTruncations: a reader that meets data on its way out is not
// told of damage.
func TestReadsBesideTruncations(t *testing.T) {
	dir := t.TempDir()
	testLogThreeFiles(t, dir)
	d := testLogOpen(t, dir)
	done := make(chan error)
	go func() {
		var err error
		for below := uint64(2); below <= 25 && err == nil; below++ {
			err = d.ClearBelow(below)
		}
		done <- err
	}()
	for {
		if _, err := d.Entries(1, 25, math.MaxUint64); err != nil && err != raft.ErrCompacted {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// TestKeepValidPrefixOfWholeLog: without damage nothing is put aside.
func TestKeepValidPrefixOfWholeLog(t *testing.T) {
	dir := t.TempDir()
	testLogClose(t, testLogBase(t, dir))
	want := testLogContentOf(t, dir)
	for range 3 {
		d := testLogOpen(t, dir, testLogKeepPrefix)
		testLogSame(t, "content", testLogContent(t, d), want)
		if aside := d.Stats().Recovery.SetAside; len(aside) != 0 {
			t.Errorf("put aside: %v", aside)
		}
		testLogClose(t, d)
	}
}

// TestPrefixEndsBeforeSnapshot: when what is left ends before the snapshot, the
// log starts behind it, since raft knows no gap between the two.
func TestPrefixEndsBeforeSnapshot(t *testing.T) {
	dir := t.TempDir()
	retain := func(o *mmapwal.Options) { o.RetainEntries = 15 }
	testLogThreeFiles(t, dir)
	d := testLogOpen(t, dir, retain)
	if err := d.CreateSnapshot(20, testLogConf(1), []byte("state")); err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(1, 1, 24), nil)
	testLogClose(t, d)
	testLogFlipRecord("00002.wal", 12)(t, dir)
	d = testLogOpen(t, dir, retain, testLogKeepPrefix)
	testLogRange(t, d, 21, 20)
	if h, _, err := d.InitialState(); err != nil || h.GetCommit() != 20 {
		t.Errorf("hard state %v, %v; want commit 20", h, err)
	}
	if aside := d.Stats().Recovery.SetAside; len(aside) != 2 {
		t.Errorf("put aside: %v", aside)
	}
	testLogSave(t, d, nil, testLogEntries(21, 22, 2, 10))
	dir = testLogCopyDir(t, dir)
	d = testLogOpen(t, dir)
	testLogRange(t, d, 21, 22)
	testLogUsable(t, d, dir)
}

// TestCommitIsPutInsideTheLog: raft accepts no commit index beyond the entries.
func TestCommitIsPutInsideTheLog(t *testing.T) {
	for commit, want := range map[uint64]uint64{0: 5, 3: 5, 5: 5, 17: 17, 30: 30, 31: 30, math.MaxUint64: 30} {
		dir := t.TempDir()
		d := testLogBase(t, dir)
		testLogSave(t, d, testLogHard(3, 1, commit), nil)
		testLogClose(t, d)
		for _, edit := range []func(*mmapwal.Options){testLogReadOnly, testLogNoSync} {
			d := testLogOpen(t, dir, edit)
			if h, _, err := d.InitialState(); err != nil || h.GetCommit() != want || h.GetTerm() != 3 || h.GetVote() != 1 {
				t.Errorf("hard state %v, %v; want commit %d", h, err, want)
			}
			testLogClose(t, d)
		}
	}
}

// testLogWithSnapshotFile makes a log whose snapshot is in a file.
func testLogWithSnapshotFile(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	d := testLogOpen(t, dir)
	if err := d.Save(testLogHard(2, 1, 9), testLogEntries(10, 12, 2, 10), testLogSnapshot(9, 2, oracle.Data(9, 2, 10_000))); err != nil {
		t.Fatal(err)
	}
	testLogClose(t, d)
	return dir, filepath.Join(dir, "0000000000000002-0000000000000009.snap")
}

// TestSnapshotFile: a missing or cut one is noticed at Open, a damaged one when
// it is read.
func TestSnapshotFile(t *testing.T) {
	for _, size := range []int64{-1, 0, 20, 48, 10_000, 20_000} {
		dir, file := testLogWithSnapshotFile(t)
		if size < 0 {
			testLogRemove(filepath.Base(file))(t, dir)
		} else if err := os.Truncate(file, size); err != nil {
			t.Fatal(err)
		}
		for _, edit := range []func(*mmapwal.Options){testLogNoSync, testLogReadOnly, testLogKeepPrefix} {
			_, err := mmapwal.Open(dir, testLogOptions(edit))
			testLogCorrupt(t, err, file)
		}
	}
}

func TestDamagedSnapshotFile(t *testing.T) {
	dir, file := testLogWithSnapshotFile(t)
	testLogFlip(t, file, 5000)
	d := testLogOpen(t, dir)
	_, err := d.Snapshot()
	testLogCorrupt(t, err, file)
	if err := d.Save(nil, nil, testLogSnapshot(11, 2, oracle.Data(11, 2, 5000))); err != nil { // a new one heals
		t.Fatal(err)
	}
	snap, err := d.Snapshot()
	if err != nil || !slices.Equal(snap.GetData(), oracle.Data(11, 2, 5000)) {
		t.Fatalf("%d bytes, %v", len(snap.GetData()), err)
	}
	testLogUsable(t, d, dir)
}

// TestDamagedMetaPage: of an unclean log any one page may be lost.
func TestDamagedMetaPage(t *testing.T) {
	for k := range int64(4) {
		dir := t.TempDir()
		live := testLogBase(t, dir)
		for commit := uint64(28); commit <= 30; commit++ {
			testLogSave(t, live, testLogHard(3, 1, commit), nil)
		}
		want := testLogContent(t, live)
		dir = testLogCopyDir(t, dir)
		testLogFlip(t, filepath.Join(dir, "wal.meta"), k*4096+520)
		d := testLogOpen(t, dir)
		if k < 2 {
			testLogSame(t, "content", testLogContent(t, d), want)
		} else if h, _ := d.HardState(); h.GetCommit() < 29 { // that of the other volatile page
			t.Errorf("page %d lost: commit %d", k, h.GetCommit())
		}
		if n := d.Stats().Recovery.HealedPages; n != 1 {
			t.Errorf("page %d lost: %d pages healed", k, n)
		}
		testLogUsable(t, d, dir)
	}
}

// TestEntryTypesSurvive: in sealed files, the tail, and after a recovery.
func TestEntryTypesSurvive(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir)
	for i := uint64(1); i <= 30; i++ {
		e := testLogEntry(i, 1, 90_000)
		e.Type = new(raftpb.EntryType(i % 3))
		testLogSave(t, d, nil, []*raftpb.Entry{e})
	}
	want := testLogContent(t, d)
	testLogSame(t, "unclean", testLogContentOf(t, testLogCopyDir(t, dir)), want)
	testLogClose(t, d)
	testLogSame(t, "clean", testLogContentOf(t, dir), want)
	testLogUsable(t, testLogOpen(t, dir), dir)
}
