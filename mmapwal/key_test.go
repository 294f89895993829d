package mmapwal_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// testLogKey returns a master key of n bytes.
func testLogKey(n int, fill byte) []byte { return bytes.Repeat([]byte{fill}, n) }

// testLogKeyed encrypts the log.
func testLogKeyed(key []byte) func(*mmapwal.Options) {
	return func(o *mmapwal.Options) { o.Key = key }
}

func testLogEncrypted(o *mmapwal.Options) { o.Key = testLogKey(32, 7) }

func testLogRequired(o *mmapwal.Options) { o.RequireEncryption = true }

func TestEncrypted(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			d, err := mmapwal.InitEncrypted(dir, testLogKey(size, 1))
			if err != nil {
				t.Fatal(err)
			}
			testLogSave(t, d, testLogHard(1, 1, 3), testLogEntries(1, 30, 1, 100_000))
			testLogSave(t, d, nil, testLogEntries(25, 26, 2, 0))
			if err := d.CreateSnapshot(3, testLogConf(1, 2), make([]byte, 3<<20)); err != nil {
				t.Fatal(err)
			}
			want := testLogContent(t, d)
			if s := d.Stats(); !s.Encrypted || s.PlainFiles != 0 {
				t.Errorf("stats %+v", s)
			}
			testLogClose(t, d)
			for range 3 {
				d = testLogOpen(t, dir, testLogKeyed(testLogKey(size, 1)), testLogRequired)
				testLogSame(t, "reopened", testLogContent(t, d), want)
				if r := d.Stats().Recovery; !r.Clean || r.Entries != 0 {
					t.Errorf("recovery %+v after a clean close", r)
				}
				reader := testLogOpen(t, dir, testLogKeyed(testLogKey(size, 1)), testLogReadOnly)
				testLogSame(t, "read beside the owner", testLogContent(t, reader), want)
				testLogClose(t, reader)
				testLogClose(t, d)
			}
		})
	}
}

// TestKeyErrors: without the right key a log is refused, and not changed.
func TestKeyErrors(t *testing.T) {
	encrypted, plain, none := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "none")
	testLogClose(t, testLogBase(t, encrypted, testLogEncrypted))
	testLogClose(t, testLogBase(t, plain))
	wrapper, err := encryption.NewKeyWrapper(testLogKey(32, 7))
	if err != nil {
		t.Fatal(err)
	}
	lengths := func(n int) func(*mmapwal.Options) { return testLogKeyed(make([]byte, n)) }
	for _, c := range []struct {
		name, dir string
		edit      func(o *mmapwal.Options)
		want      []error
	}{
		{"no key", encrypted, func(*mmapwal.Options) {}, []error{mmapwal.ErrKeyRequired}},
		{"wrong key", encrypted, testLogKeyed(testLogKey(32, 8)), []error{mmapwal.ErrWrongKey}},
		{"shorter key", encrypted, testLogKeyed(testLogKey(16, 7)), []error{mmapwal.ErrWrongKey}},
		{"wrong wrapper", encrypted, func(o *mmapwal.Options) { o.KeyWrapper = testLogKMS{fail: true} }, []error{errTestLogKMS}},
		{"plain, though required", plain, func(o *mmapwal.Options) { testLogEncrypted(o); testLogRequired(o) }, []error{mmapwal.ErrNotEncrypted}},
		{"required without a key", none, testLogRequired, []error{mmapwal.ErrInvalid}},
		{"key and wrapper", none, func(o *mmapwal.Options) { testLogEncrypted(o); o.KeyWrapper = wrapper }, []error{mmapwal.ErrInvalid}},
		{"wrapper that fails", none, func(o *mmapwal.Options) { o.KeyWrapper = testLogKMS{fail: true} }, []error{errTestLogKMS}},
		{"key of 0 bytes", none, lengths(0), []error{mmapwal.ErrInvalid, mmapwal.ErrKeyLength}},
		{"key of 15 bytes", none, lengths(15), []error{mmapwal.ErrInvalid, mmapwal.ErrKeyLength}},
		{"key of 17 bytes", none, lengths(17), []error{mmapwal.ErrInvalid, mmapwal.ErrKeyLength}},
		{"key of 33 bytes", none, lengths(33), []error{mmapwal.ErrInvalid, mmapwal.ErrKeyLength}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, readOnly := range []bool{false, true} {
				if c.dir == none && readOnly {
					continue
				}
				before := testLogDirState(t, c.dir)
				_, err := mmapwal.Open(c.dir, testLogOptions(c.edit, func(o *mmapwal.Options) { o.ReadOnly = readOnly }))
				testLogIs(t, err, c.want...)
				if errors.Is(err, mmapwal.ErrTampered) || errors.Is(err, mmapwal.ErrCorrupt) || errors.Is(err, mmapwal.ErrWrongKey) && c.want[0] != mmapwal.ErrWrongKey {
					t.Errorf("error %q says more than is known", err)
				}
				if errors.Is(err, mmapwal.ErrKeyLength) && !bytes.Contains([]byte(err.Error()), []byte("16, 24 or 32 bytes")) {
					t.Errorf("error %q does not say which lengths are allowed", err)
				}
				if c.dir != none {
					testLogSame(t, "directory", testLogDirState(t, c.dir), before)
				} else if infos, _ := os.ReadDir(c.dir); len(infos) > 0 {
					t.Errorf("%v was made", infos)
				}
			}
		})
	}
	_, err = mmapwal.InitEncrypted(none, nil)
	testLogIs(t, err, mmapwal.ErrKeyLength)
}

var errTestLogKMS = errors.New("the KMS is down")

// testLogKMS is a KeyWrapper.
type testLogKMS struct{ fail bool }

func (k testLogKMS) Encrypt(plaintext, ad []byte) ([]byte, error) {
	if k.fail {
		return nil, errTestLogKMS
	}
	return append(bytes.Clone(ad), plaintext...), nil
}

func (k testLogKMS) Decrypt(ciphertext, ad []byte) ([]byte, error) {
	plaintext, ok := bytes.CutPrefix(ciphertext, ad)
	if k.fail || !ok {
		return nil, errTestLogKMS
	}
	return bytes.Clone(plaintext), nil
}

func TestKeyWrapper(t *testing.T) {
	dir := t.TempDir()
	kms := func(o *mmapwal.Options) { o.KeyWrapper = testLogKMS{} }
	d := testLogBase(t, dir, kms)
	want := testLogContent(t, d)
	testLogIs(t, d.RotateKeyWrapper(testLogKMS{fail: true}), errTestLogKMS)
	testLogIs(t, d.RotateKeyWrapper(nil), mmapwal.ErrInvalid)
	testLogClose(t, d)
	d = testLogOpen(t, dir, kms)
	testLogSame(t, "content", testLogContent(t, d), want)
}

// TestRotateKey while the log is written: the old key is refused from then on.
func TestRotateKey(t *testing.T) {
	dir := t.TempDir()
	d := testLogBase(t, dir, testLogEncrypted)
	last, _ := d.LastIndex()
	var saving sync.WaitGroup
	saving.Go(func() {
		for i := last + 1; i <= last+200; i++ {
			if err := d.Save(testLogHard(9, 1, i), []*raftpb.Entry{testLogEntry(i, 9, 100)}, nil); err != nil {
				t.Error(err)
			}
		}
	})
	newest := testLogKey(32, 7)
	for k := range byte(10) {
		newest = testLogKey([]int{16, 24, 32}[k%3], 100+k)
		if err := d.RotateKey(newest); err != nil {
			t.Fatal(err)
		}
	}
	saving.Wait()
	testLogIs(t, d.RotateKey(make([]byte, 5)), mmapwal.ErrInvalid, mmapwal.ErrKeyLength)
	want := testLogContent(t, d)
	if err := d.RotateKey(testLogKey(24, 200)); err != nil {
		t.Fatal(err)
	}
	copied := testLogCopyDir(t, dir) // as a crash leaves it
	testLogClose(t, d)
	for _, dir := range []string{dir, copied} {
		_, err := mmapwal.Open(dir, testLogOptions(testLogKeyed(newest)))
		testLogIs(t, err, mmapwal.ErrWrongKey)
		d = testLogOpen(t, dir, testLogKeyed(testLogKey(24, 200)))
		testLogSame(t, "with the new key", testLogContent(t, d), want)
		testLogClose(t, d)
	}
	d = testLogBase(t, t.TempDir())
	testLogIs(t, d.RotateKey(newest), mmapwal.ErrNotEncrypted)
}

// TestOldKeyOpensNothing: after a rotation no page has what the old key unwraps.
func TestOldKeyOpensNothing(t *testing.T) {
	dir := t.TempDir()
	old, err := encryption.NewKeyWrapper(testLogKey(32, 7))
	if err != nil {
		t.Fatal(err)
	}
	d := testLogBase(t, dir, testLogEncrypted)
	if n := testLogUnwrapped(t, dir, old); n < 2 {
		t.Fatalf("the old key opens %d pages before the rotation", n)
	}
	if err := d.RotateKey(testLogKey(32, 8)); err != nil {
		t.Fatal(err)
	}
	if n := testLogUnwrapped(t, dir, old); n != 0 {
		t.Fatalf("the old key opens %d pages", n)
	}
}

// testLogUnwrapped counts the pages of wal.meta whose directory key w unwraps.
func testLogUnwrapped(t *testing.T, dir string, w encryption.KeyWrapper) (n int) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "wal.meta"))
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(content, page.Size) {
		at := 1044 + page.Order.Uint32(p[1040:])
		wrapped := p[at+4 : at+4+page.Order.Uint32(p[at:])]
		if _, err := encryption.UnwrapDirectoryKey(w, wrapped, page.Order.Uint64(p[48:])); err == nil {
			n++
		}
	}
	return n
}

// TestRotateKeyCut cuts the power at every step of a rotation, and of turning the
// encryption on: the log opens with what was, or with what was going to be.
func TestRotateKeyCut(t *testing.T) {
	seed := testLogSeed(t)
	before := func(o *mmapwal.Options) {}
	after := testLogKeyed(testLogKey(16, 3))
	rotate := func(d *mmapwal.DiskStorage, err error) (*mmapwal.DiskStorage, error) {
		return d, errors.Join(err, d.RotateKey(testLogKey(16, 3)))
	}
	t.Run("rotation", func(t *testing.T) { testLogKeyCut(t, seed, testLogEncrypted, testLogEncrypted, after, rotate) })
	keep := func(d *mmapwal.DiskStorage, err error) (*mmapwal.DiskStorage, error) { return d, err }
	t.Run("first key", func(t *testing.T) { testLogKeyCut(t, seed, before, after, after, keep) })
}

func testLogKeyCut(t *testing.T, seed uint64, before, during, after func(*mmapwal.Options),
	change func(*mmapwal.DiskStorage, error) (*mmapwal.DiskStorage, error)) {
	opens := map[string]int{}
	for cut, again := 1, true; again; cut++ {
		disk := simdisk.New()
		if err := disk.MkdirAll("/log"); err != nil {
			t.Fatal(err)
		}
		d := testLogOpen(t, "/log", testLogOn(disk), before)
		testLogSave(t, d, testLogHard(2, 1, 2), testLogEntries(1, 9, 2, 50))
		if err := d.CreateSnapshot(2, nil, []byte("inline")); err != nil {
			t.Fatal(err)
		}
		want := testLogContent(t, d)
		testLogClose(t, d)
		disk.CutAt(cut)
		if d, err := mmapwal.Open("/log", testLogOptions(testLogOn(disk), during)); err == nil {
			_, err = change(d, nil)
			again = err != nil
		}
		for k := range uint64(20) {
			opens[testLogKeyOpens(t, disk.Crash(mrand.New(mrand.NewPCG(seed+k, uint64(cut)))), want, before, after)]++
		}
	}
	t.Logf("images that open with %v", opens)
	if opens["before"] == 0 || opens["after"] == 0 {
		t.Fatal("not all cases were met")
	}
}

// testLogKeyOpens says which of two options open the log.
func testLogKeyOpens(t *testing.T, image *simdisk.FS, want string, before, after func(*mmapwal.Options)) string {
	t.Helper()
	name := "before"
	d, err := mmapwal.Open("/log", testLogOptions(testLogOn(image), before, testLogReadOnly))
	if errors.Is(err, mmapwal.ErrWrongKey) || errors.Is(err, mmapwal.ErrKeyRequired) {
		name = "after"
		d, err = mmapwal.Open("/log", testLogOptions(testLogOn(image), after))
	}
	if err != nil {
		t.Fatal(err)
	}
	testLogSame(t, "opened with the key "+name, testLogContent(t, d), want)
	testLogClose(t, d)
	return name
}

// TestEncryptionTurnedOn: what was stored before stays readable until compaction
// removes it.
func TestEncryptionTurnedOn(t *testing.T) {
	for name, snapshot := range map[string]int{"inline snapshot": 10, "snapshot in a file": 5000} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			testLogThreeFiles(t, dir)
			d := testLogOpen(t, dir)
			if err := d.CreateSnapshot(3, nil, make([]byte, snapshot)); err != nil {
				t.Fatal(err)
			}
			testLogSave(t, d, testLogHard(1, 1, 3), nil)
			want := testLogContent(t, d)
			testLogClose(t, d)
			plain := 3 + snapshot/5000
			for range 2 {
				d = testLogOpen(t, dir, testLogEncrypted)
				testLogSame(t, "encrypted", testLogContent(t, d), want)
				if s := d.Stats(); !s.Encrypted || s.PlainFiles != plain {
					t.Fatalf("encrypted %v, %d plain files, want %d", s.Encrypted, s.PlainFiles, plain)
				}
				testLogClose(t, d)
			}
			_, err := mmapwal.Open(dir, testLogOptions())
			testLogIs(t, err, mmapwal.ErrKeyRequired)
			d = testLogOpen(t, dir, testLogEncrypted)
			testLogSave(t, d, nil, testLogEntries(25, 30, 2, 100))
			if err := d.CreateSnapshot(10, nil, make([]byte, 5000)); err != nil {
				t.Fatal(err)
			}
			d.WaitForBackground()
			if s := d.Stats(); s.PlainFiles != 2 {
				t.Fatalf("%d plain files, want 2", s.PlainFiles)
			}
			if err := d.CreateSnapshot(28, nil, nil); err != nil {
				t.Fatal(err)
			}
			testLogSave(t, d, testLogHard(2, 1, 28), nil)
			d.WaitForBackground()
			if s := d.Stats(); s.PlainFiles != 0 {
				t.Fatalf("%d plain files, want none", s.PlainFiles)
			}
			want = testLogContent(t, d)
			testLogClose(t, d)
			testLogSame(t, "reopened", testLogContent(t, testLogOpen(t, dir, testLogEncrypted)), want)
		})
	}
}

// testLogForge edits a file and makes its CRC-32Cs right again.
type testLogForge struct {
	name  string
	forge func(t *testing.T, dir string)
	file  string // the one that is named
}

// testLogForgeHeader edits the header pages of an entry file.
func testLogForgeHeader(file string, edit func(p []byte)) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		testLogEdit(t, filepath.Join(dir, file), func(content []byte) []byte {
			for _, at := range []int{1<<20 - 2*page.Size, 1<<20 - page.Size} {
				if p := content[at : at+page.Size]; string(p[:8]) == "RAFTWALe" {
					edit(p)
					page.Seal(p, 12)
				}
			}
			return content
		})
	}
}

// testLogForgeRecord edits the record of entry i.
func testLogForgeRecord(file string, i uint64, edit func(record []byte)) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		at := testLogRecords(t, filepath.Join(dir, file))[i]
		testLogEdit(t, filepath.Join(dir, file), func(content []byte) []byte {
			record := content[at : at+32+int64(page.Order.Uint32(content[at+28:]))]
			edit(record)
			salt := page.Order.Uint32(content[1<<20-2*page.Size+56:])
			page.Order.PutUint32(record, page.Sum(salt, record[4:]))
			return content
		})
	}
}

// testLogForgeries are what somebody may do who knows the format, not the key, to
// a log whose files hold entries 1 to 9, 10 to 18, and 19 to 24.
func testLogForgeries() []testLogForge {
	meta := func(edit func(p []byte)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { testLogPages(t, filepath.Join(dir, "wal.meta"), edit) }
	}
	return []testLogForge{
		{"data of a record", testLogForgeRecord("00001.wal", 5, func(r []byte) { r[40] ^= 1 }), "00001.wal"},
		{"tag of a record", testLogForgeRecord("00002.wal", 12, func(r []byte) { r[len(r)-1] ^= 1 }), "00002.wal"},
		{"mark of a record", testLogForgeRecord("00003.wal", 20, func(r []byte) { r[27] ^= 1 }), "00003.wal"},
		{"record moved to another place", testLogMoveRecord("00001.wal", 4, 5), "00001.wal"},
		{"term in the header", testLogForgeHeader("00002.wal", func(p []byte) { p[128+15] ^= 1 }), "00002.wal"},
		{"seal in the header", testLogForgeHeader("00003.wal", func(p []byte) { p[71]--; p[87]-- }), "00003.wal"},
		{"salt in the header", testLogForgeHeader("00002.wal", func(p []byte) { p[56] ^= 1 }), "00002.wal"},
		{"wrapped key in the header", testLogForgeHeader("00001.wal", func(p []byte) { p[3210] ^= 1 }), "00001.wal"},
		{"header of a plain file", testLogForgeHeader("00001.wal", func(p []byte) { p[63] &^= 4 }), "00001.wal"},
		{"commit in wal.meta", meta(func(p []byte) { p[521] ^= 1 }), "wal.meta"},
		{"Raft ID in wal.meta", meta(func(p []byte) { p[7] ^= 1 }), "wal.meta"},
		{"snapshot index in wal.meta", meta(func(p []byte) { p[1031] ^= 1 }), "wal.meta"},
		{"wal.meta of a plain log", testLogPlainMeta, "wal.meta"},
		{"snapshot file", testLogForgeSnapshot, "0000000000000001-0000000000000003.snap"},
	}
}

func testLogMoveRecord(file string, from, to uint64) func(t *testing.T, dir string) {
	return func(t *testing.T, dir string) {
		records := testLogRecords(t, filepath.Join(dir, file))
		content, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		moved := bytes.Clone(content[records[from] : records[from]+32+int64(page.Order.Uint32(content[records[from]+28:]))])
		testLogForgeRecord(file, to, func(r []byte) {
			index := bytes.Clone(r[16:24])
			copy(r, moved)
			copy(r[16:24], index)
		})(t, dir)
	}
}

// testLogPlainMeta makes one page of wal.meta say, as the newest, that the log is
// not encrypted.
func testLogPlainMeta(t *testing.T, dir string) {
	testLogEdit(t, filepath.Join(dir, "wal.meta"), func(content []byte) []byte {
		p := content[page.Size : 2*page.Size]
		p[39] &^= 2
		p[40] = 1
		clear(p[1024:])
		page.Order.PutUint32(p[128:], 1044)
		page.Seal(p[:1044], 60)
		return content
	})
}

func testLogForgeSnapshot(t *testing.T, dir string) {
	testLogEdit(t, filepath.Join(dir, "0000000000000001-0000000000000003.snap"), func(content []byte) []byte {
		content[200] ^= 1
		page.Order.PutUint32(content[12:], page.Sum(0, content[16:]))
		return content
	})
}

// TestTampered: forgeries with the right checksums are noticed before anything is
// written, or served.
func TestTampered(t *testing.T) {
	origin := t.TempDir()
	testLogThreeFiles(t, origin, testLogEncrypted)
	d := testLogOpen(t, origin, testLogEncrypted)
	if err := d.CreateSnapshot(3, nil, make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	testLogClose(t, d)
	for _, f := range testLogForgeries() {
		t.Run(f.name, func(t *testing.T) {
			dir := testLogCopyDir(t, origin)
			f.forge(t, dir)
			before := testLogDirState(t, dir)
			for _, edit := range []func(*mmapwal.Options){testLogReadOnly, func(*mmapwal.Options) {}} {
				d, err := mmapwal.Open(dir, testLogOptions(testLogEncrypted, edit))
				if err != nil {
					testLogSame(t, "directory", testLogDirState(t, dir), before)
				} else {
					_, err = testLogReadAll(d)
					_ = d.Close()
				}
				testLogIs(t, err, mmapwal.ErrTampered)
				testLogCorrupt(t, err, filepath.Join(dir, f.file))
			}
		})
	}
}

// testLogReadAll reads all that can be read.
func testLogReadAll(d *mmapwal.DiskStorage) (string, error) {
	first, _ := d.FirstIndex()
	last, _ := d.LastIndex()
	_, err1 := d.Entries(first, last+1, math.MaxUint64)
	_, err2 := d.Snapshot()
	return "", errors.Join(err1, err2)
}

// TestTamperedTail: in the tail of a log that was killed.
func TestTamperedTail(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir, testLogEncrypted)
	testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 9, 1, 100))
	for name, edit := range map[string]func(r []byte){
		"last record": func(r []byte) { r[34] ^= 1 },
		"its term":    func(r []byte) { r[15]++ },
	} {
		t.Run(name, func(t *testing.T) {
			dir := testLogCopyDir(t, dir)
			testLogForgeRecord("00001.wal", 9, edit)(t, dir)
			_, err := mmapwal.Open(dir, testLogOptions(testLogEncrypted))
			testLogIs(t, err, mmapwal.ErrTampered)
			if e := testLogCorrupt(t, err, filepath.Join(dir, "00001.wal")); e.First != 9 || e.Last != 9 {
				t.Errorf("entries %d to %d are named", e.First, e.Last)
			}
		})
	}
}

// TestOldSlots: slots of an earlier time, which point to superseded records, are
// not believed.
func TestOldSlots(t *testing.T) {
	dir := t.TempDir()
	d := testLogOpen(t, dir, testLogEncrypted)
	testLogSave(t, d, testLogHard(1, 1, 1), testLogEntries(1, 9, 1, 100))
	content, err := os.ReadFile(filepath.Join(dir, "00001.wal"))
	if err != nil {
		t.Fatal(err)
	}
	testLogSave(t, d, testLogHard(2, 1, 1), testLogEntries(4, 9, 2, 100))
	want := testLogContent(t, d)
	testLogClose(t, d)
	testLogEdit(t, filepath.Join(dir, "00001.wal"), func(now []byte) []byte {
		copy(now, content[:9*32])
		return now
	})
	d = testLogOpen(t, dir, testLogEncrypted)
	testLogSame(t, "content", testLogContent(t, d), want)
	if d.Stats().HealedFiles != 1 {
		t.Error("the slots were not rebuilt")
	}
}

// TestFileOfAnotherCopy: two copies of a log that both went on have the same ID,
// keys and numbers; a file of the one is not taken for that of the other.
func TestFileOfAnotherCopy(t *testing.T) {
	for name, edit := range map[string]func(*mmapwal.Options){"plain": func(*mmapwal.Options) {}, "encrypted": testLogEncrypted} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			testLogThreeFiles(t, dir, edit)
			other := testLogCopyDir(t, dir)
			for k, dir := range []string{dir, other} {
				for from := range uint64(2) {
					d := testLogOpen(t, dir, edit) // a new file each time
					testLogSave(t, d, nil, testLogEntries(25+4*from, 28+4*from, 1, 300_000+k))
					testLogClose(t, d)
				}
			}
			for _, number := range []string{"00004.wal", filepath.Base(testLogLastFile(t, dir))} {
				mixed := testLogCopyDir(t, dir)
				testLogCopyFile(t, filepath.Join(other, number), filepath.Join(mixed, number))
				_, err := mmapwal.Open(mixed, testLogOptions(edit))
				testLogIs(t, err, mmapwal.ErrCorrupt)
			}
		})
	}
}

// TestNoPlaintext looks for any eight bytes of what was stored, in every file,
// after each kind of call.
func TestNoPlaintext(t *testing.T) {
	dir := t.TempDir()
	secret := make([]byte, 6000)
	_, _ = rand.Read(secret)
	windows := make(map[string]bool)
	for at := range len(secret) - 8 {
		windows[string(secret[at:at+8])] = true
	}
	entries := func(from, to, term uint64, n int) (es []*raftpb.Entry) {
		for i := from; i <= to; i++ {
			es = append(es, &raftpb.Entry{Index: &i, Term: &term, Data: secret[:n]})
		}
		return es
	}
	var d *mmapwal.DiskStorage
	snapshot := func(i uint64, n int) *raftpb.Snapshot {
		s := testLogSnapshot(i, 5, secret[:n])
		return s
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"open", func() error { d = testLogOpen(t, dir, testLogEncrypted); return nil }},
		{"append", func() error { return d.Save(testLogHard(1, 1, 1), entries(1, 20, 1, 500), nil) }},
		{"large entries", func() error { return d.Save(nil, entries(21, 24, 1, 6000), nil) }},
		{"overwrite", func() error { return d.Save(testLogHard(2, 1, 1), entries(10, 30, 2, 3000), nil) }},
		{"rotation", func() error { return d.Save(nil, entries(31, 330, 2, 6000), nil) }},
		{"inline snapshot", func() error { return d.CreateSnapshot(5, nil, secret[:1500]) }},
		{"snapshot in a file", func() error { return d.CreateSnapshot(8, nil, secret) }},
		{"truncation", func() error { return d.ClearBelow(100) }},
		{"rotated key", func() error { return errors.Join(d.RotateKey(testLogKey(16, 1)), d.RotateKey(testLogKey(32, 7))) }},
		{"installed snapshot", func() error { return d.Save(testLogHard(5, 1, 400), entries(401, 410, 5, 700), snapshot(400, 6000)) }},
		{"inline again", func() error { return d.CreateSnapshot(401, nil, secret[:300]) }},
		{"sync", func() error { return d.Sync() }},
		{"kill", func() error { dir = testLogCopyDir(t, dir); d = testLogOpen(t, dir, testLogEncrypted); return nil }},
		{"append after recovery", func() error { return d.Save(nil, entries(411, 420, 5, 500), nil) }},
		{"close", func() error { return d.Close() }},
		{"keep the valid prefix", func() error {
			testLogFlip(t, testLogLastFile(t, dir), 1<<20+200)
			d = testLogOpen(t, dir, testLogEncrypted, testLogKeepPrefix)
			return d.Close()
		}},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		testLogNoneOf(t, s.name, dir, windows)
	}
}

func testLogNoneOf(t *testing.T, step, dir string, windows map[string]bool) {
	t.Helper()
	infos, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		content, err := os.ReadFile(filepath.Join(dir, info.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.TrimRight(content, "\x00")
		for at := 0; at+8 <= len(content); at++ {
			if windows[string(content[at:at+8])] {
				t.Fatalf("after %s: %s has %s of the data at %d", step, info.Name(), hex.EncodeToString(content[at:at+8]), at)
			}
		}
	}
}

// TestKeysAreWiped when the log is closed.
func TestKeysAreWiped(t *testing.T) {
	d := testLogBase(t, t.TempDir(), testLogEncrypted)
	keys := d.Keys()
	if _, err := keys.Seal(rand.Reader, nil, nil); err != nil {
		t.Fatal(err)
	}
	testLogClose(t, d)
	if _, err := keys.Seal(rand.Reader, nil, nil); !errors.Is(err, encryption.ErrWiped) {
		t.Fatalf("the directory key is still there: %v", err)
	}
}

// TestEncryptedLimits: what a read returns is limited by the size of the entries
// as they were saved.
func TestEncryptedLimits(t *testing.T) {
	plain, encrypted := testLogBase(t, t.TempDir()), testLogBase(t, t.TempDir(), testLogEncrypted)
	for limit := range uint64(2000) {
		a, err1 := plain.Entries(21, 31, limit)
		b, err2 := encrypted.Entries(21, 31, limit)
		if err := errors.Join(err1, err2); err != nil || len(a) != len(b) {
			t.Fatalf("limit %d: %d entries, encrypted %d, %v", limit, len(a), len(b), err)
		}
	}
	if a, b := testLogContent(t, plain), testLogContent(t, encrypted); a != b {
		t.Fatal("the contents differ")
	}
}

// TestSnapshotOfACopy: two copies of a log went on apart, and each has a snapshot of the same
// index and term. The file of the one is not taken for that of the other.
func TestSnapshotOfACopy(t *testing.T) {
	for name, edits := range map[string][]func(*mmapwal.Options){"plain": {}, "encrypted": {testLogEncrypted}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d := testLogOpen(t, dir, edits...)
			testLogSave(t, d, testLogHard(1, 1, 5), testLogEntries(1, 5, 1, 10))
			testLogClose(t, d)
			copied := testLogCopyDir(t, dir)
			for k, dir := range []string{dir, copied} {
				d := testLogOpen(t, dir, edits...)
				if err := d.CreateSnapshot(5, testLogConf(1), bytes.Repeat([]byte{byte(k)}, 5000)); err != nil {
					t.Fatal(err)
				}
				testLogClose(t, d)
				testLogClose(t, testLogOpen(t, dir, edits...))
			}
			file := metafile.SnapshotName(metafile.Position{Index: 5, Term: 1})
			own := testLogCopyDir(t, dir)
			testLogCopyFile(t, filepath.Join(copied, file), filepath.Join(dir, file))
			for _, edit := range []func(*mmapwal.Options){testLogReadOnly, func(*mmapwal.Options) {}} {
				_, err := mmapwal.Open(dir, testLogOptions(append(edits, edit)...))
				testLogCorrupt(t, err, filepath.Join(dir, file))
				if tampered := errors.Is(err, mmapwal.ErrTampered); tampered != (name == "encrypted") {
					t.Errorf("tampered %v: %v", tampered, err)
				}
			}
			for _, at := range []int64{13, 60} { // rot of its own file is no alarm
				rotten := testLogCopyDir(t, own)
				testLogFlip(t, filepath.Join(rotten, file), at)
				d, err := mmapwal.Open(rotten, testLogOptions(edits...))
				if err == nil {
					_, err = d.Snapshot()
					testLogClose(t, d)
				}
				testLogCorrupt(t, err, filepath.Join(rotten, file))
				if errors.Is(err, mmapwal.ErrTampered) {
					t.Errorf("damage at %d is called tampering: %v", at, err)
				}
			}
		})
	}
}
