package simdisk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
)

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// create makes a file of two pages, durable, full of 'a'.
func create(t *testing.T, fsys *simdisk.FS) (vfs.File, vfs.Mapping) {
	t.Helper()
	f, err := fsys.Create("/f")
	must(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{'a'}, 8192), 0)
	must(t, err, f.Sync(), fsys.SyncDir("/"))
	m, err := f.Map(8192)
	must(t, err)
	return f, m
}

// write writes p to f at the offset off, which its mapping then shows.
func write(f vfs.File, off int64, p []byte) error {
	_, err := f.WriteAt(p, off)
	return err
}

// read returns the content of a file; nil if there is none.
func read(t *testing.T, fsys *simdisk.FS, name string) []byte {
	t.Helper()
	f, err := fsys.Open(name, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(t, err)
	size, err := f.Size()
	must(t, err)
	content := make([]byte, size)
	if size > 0 {
		_, err = f.ReadAt(content, 0)
	}
	must(t, err, f.Close())
	return content
}

// images takes many images with a random choice of their own.
func images(fsys *simdisk.FS, check func(image *simdisk.FS)) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		check(fsys.Crash(r))
	}
}

func TestSectors(t *testing.T) {
	fsys := simdisk.New()
	f, m := create(t, fsys)
	for _, b := range []byte{'b', 'c'} {
		must(t, write(f, 4096, bytes.Repeat([]byte{b}, 1024)))
	}
	firsts, torn, mixed := make(map[byte]int), 0, 0
	images(fsys, func(image *simdisk.FS) {
		got := read(t, image, "/f")
		if !bytes.Equal(got[:4096], bytes.Repeat([]byte{'a'}, 4096)) || !bytes.Equal(got[5120:], bytes.Repeat([]byte{'a'}, 3072)) {
			t.Fatal("a sector that was not stored to has changed")
		}
		firsts[got[4096]]++
		for at := 4096; at < 5120; at += 8 {
			if word := got[at : at+8]; !bytes.Equal(word, bytes.Repeat(word[:1], 8)) {
				t.Fatalf("word at %d is torn: %q", at, word)
			}
		}
		if !bytes.Equal(got[4096:4608], bytes.Repeat(got[4096:4097], 512)) {
			torn++
		} else if got[4096] != got[4608] {
			mixed++
		}
	})
	if firsts['a'] == 0 || firsts['b'] == 0 || firsts['c'] == 0 || torn == 0 || mixed == 0 {
		t.Errorf("first bytes %v, %d torn, %d mixed", firsts, torn, mixed)
	}
	must(t, m.Sync(4096, 1))
	images(fsys, func(image *simdisk.FS) {
		if got := read(t, image, "/f"); !bytes.Equal(got, m.Bytes()) {
			t.Fatal("what was synced is lost")
		}
	})
}

func TestSyncOfARangeLeavesOtherPages(t *testing.T) {
	fsys := simdisk.New()
	f, m := create(t, fsys)
	must(t, write(f, 0, []byte("x")), write(f, 4096, []byte("y")), m.Sync(4096, 1))
	lost := 0
	images(fsys, func(image *simdisk.FS) {
		got := read(t, image, "/f")
		if got[4096] != 'y' {
			t.Fatal("the synced page is lost")
		}
		if got[0] == 'a' {
			lost++
		}
	})
	if lost == 0 {
		t.Error("the other page never is")
	}
}

func TestFailedSyncCallsPagesClean(t *testing.T) {
	fsys := simdisk.New()
	f, m := create(t, fsys)
	must(t, write(f, 0, []byte("x")))
	fsys.SetHook(func(simdisk.Op, string) error { return syscall.EIO })
	if err := m.Sync(0, 1); !errors.Is(err, syscall.EIO) || !vfs.SyncFailed(err) {
		t.Fatal(err)
	}
	fsys.SetHook(nil)
	must(t, m.Sync(0, 1))
	found := make(map[byte]int)
	note := func(image *simdisk.FS) { found[read(t, image, "/f")[0]]++ }
	if images(fsys, note); found['a'] == 0 || found['x'] == 0 {
		t.Errorf("after a second sync: %v", found)
	}
	clear(found)
	must(t, write(f, 0, []byte("x")), m.Sync(0, 1))
	if images(fsys, note); found['a'] > 0 {
		t.Errorf("after a store and a sync: %v", found)
	}
}

func TestNames(t *testing.T) {
	fsys := simdisk.New()
	f, _ := create(t, fsys)
	g, err := fsys.Create("/g")
	must(t, err)
	_, err = g.WriteAt([]byte("g"), 0)
	must(t, err, g.Sync(), fsys.SyncDir("/"))
	must(t, fsys.Rename("/g", "/f"), f.Close(), g.Close())
	_, err = fsys.Create("/h")
	must(t, err)
	found := make(map[string]int)
	images(fsys, func(image *simdisk.FS) {
		infos, err := image.List("/")
		must(t, err)
		names := ""
		for _, info := range infos {
			names += info.Name
		}
		if isNew := len(read(t, image, "/f")) == 1; isNew == (read(t, image, "/g") != nil) {
			t.Fatalf("half a rename: %s", names)
		}
		found[names]++
	})
	if found["fg"] == 0 || found["f"] == 0 || found["fgh"] == 0 || found["fh"] == 0 || len(found) != 4 {
		t.Errorf("found %v", found)
	}
	must(t, fsys.SyncDir("/"), fsys.Remove("/h"))
	clear(found)
	images(fsys, func(image *simdisk.FS) {
		if len(read(t, image, "/f")) != 1 {
			t.Fatal("the rename is lost")
		}
		found[string(rune('0'+len(must2(image.List("/")))))]++
	})
	if found["1"] == 0 || found["2"] == 0 {
		t.Errorf("the removal: %v", found)
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestPlain: a disk that cannot allocate, and its images, leave what is stored as it is.
func TestPlain(t *testing.T) {
	fsys := simdisk.New()
	fsys.Plain()
	f, _ := create(t, fsys)
	must(t, write(f, 0, []byte("x")), write(f, 4090, []byte("yyyyyyyyyyyy")), f.Sync())
	want := string(read(t, fsys, "/f"))
	images(fsys, func(image *simdisk.FS) {
		f, err := image.Open("/f", false)
		must(t, err, f.Reserve(0, 8192))
		if got := string(read(t, image, "/f")); got != want {
			t.Fatal("Reserve changed the file")
		}
		if err := f.Punch(0, 4096); !errors.Is(err, errors.ErrUnsupported) {
			t.Fatalf("Punch: %v", err)
		}
		if start, end, err := f.Data(7); start != 7 || end != 8192 || err != nil {
			t.Fatalf("data %d to %d, %v", start, end, err)
		}
	})
}

// TestCopied: of a copy that was never synced a power cut can leave anything, and a sync
// makes it durable; the files are others.
func TestCopied(t *testing.T) {
	fsys := simdisk.New()
	_, m := create(t, fsys)
	must(t, m.Sync(0, 8192), fsys.SyncDir("/"))
	want := string(read(t, fsys, "/f"))
	c := fsys.Copied()
	if got := string(read(t, c, "/f")); got != want {
		t.Fatal("the copy has another content")
	}
	if a, b := must2(fsys.List("/"))[0], must2(c.List("/"))[0]; a.Inode == b.Inode || a.Inode == 0 || a.Size != b.Size {
		t.Errorf("file %+v, copy %+v", a, b)
	}
	none, short, zeros, whole := 0, 0, 0, 0
	count := func(image *simdisk.FS) {
		switch got := read(t, image, "/f"); {
		case got == nil:
			none++
		case len(got) < len(want):
			short++
		case string(got) == want:
			whole++
		default:
			zeros++
		}
	}
	images(c, count)
	if none == 0 || short == 0 || zeros == 0 {
		t.Errorf("%d images without the file, %d with less of it, %d with zeros", none, short, zeros)
	}
	f, err := c.Open("/f", false)
	must(t, err, f.Sync(), c.SyncDir("/"))
	none, short, zeros, whole = 0, 0, 0, 0
	if images(c, count); whole == 0 || none+short+zeros > 0 {
		t.Errorf("synced: %d images with all, %d without", whole, none+short+zeros)
	}
}

func TestSize(t *testing.T) {
	fsys := simdisk.New()
	f, err := fsys.Create("/f")
	must(t, err, fsys.SyncDir("/"), f.Truncate(5000))
	sizes := make(map[int]int)
	note := func(image *simdisk.FS) { sizes[len(read(t, image, "/f"))]++ }
	if images(fsys, note); sizes[0] == 0 || sizes[5000] == 0 || len(sizes) != 2 {
		t.Errorf("sizes %v", sizes)
	}
	must(t, f.Truncate(0), f.Sync())
	clear(sizes)
	if images(fsys, note); len(sizes) != 1 || sizes[0] == 0 {
		t.Errorf("sizes %v after the sync", sizes)
	}
}

func TestCutAt(t *testing.T) {
	fsys := simdisk.New()
	f, m := create(t, fsys)
	fsys.CutAt(2)
	must(t, write(f, 0, []byte("1")))
	before := fsys.Steps()
	errs := []error{write(f, 0, []byte("2")), m.Sync(0, 1), f.Sync(), f.Truncate(1), f.Reserve(0, 1), f.Punch(0, 1),
		fsys.Rename("/f", "/g"), fsys.Remove("/f"), fsys.SyncDir("/"), fsys.MkdirAll("/d")}
	_, err := f.WriteAt([]byte("3"), 0)
	errs = append(errs, err)
	_, err = fsys.Create("/h")
	for k, err := range append(errs, err) {
		if !errors.Is(err, simdisk.ErrCut) {
			t.Errorf("operation %d: %v", k, err)
		}
	}
	if got := read(t, fsys, "/f"); got[0] != '1' || len(got) != 8192 || !fsys.IsCut() || fsys.Steps() != before {
		t.Error("something was done after the cut")
	}
	fsys.Restart()
	must(t, write(f, 0, []byte("4")))
	fsys.CutAt(1, simdisk.OpSyncDir)
	must(t, write(f, 0, []byte("5")), m.Sync(0, 1))
	if err := fsys.SyncDir("/"); !errors.Is(err, simdisk.ErrCut) {
		t.Error(err)
	}
}

func TestLock(t *testing.T) {
	fsys := simdisk.New()
	f, _ := create(t, fsys)
	g, err := fsys.Open("/f", false)
	must(t, err, f.Lock(), f.Lock())
	if err := g.Lock(); !errors.Is(err, vfs.ErrLocked) {
		t.Error(err)
	}
	must(t, f.Close(), g.Lock())
	fsys.Restart()
	must(t, f.Lock())
}

func TestHoles(t *testing.T) {
	fsys := simdisk.New()
	f, err := fsys.Create("/f")
	must(t, err, f.Truncate(5*4096), f.Reserve(0, 5*4096))
	m, err := f.Map(5 * 4096)
	must(t, err, write(f, 2*4096+5, []byte("x")))
	for _, c := range [][3]int64{{0, 2 * 4096, 3 * 4096}, {2*4096 + 9, 2*4096 + 9, 3 * 4096}, {3 * 4096, 3 * 4096, 3 * 4096}} {
		if start, end, err := f.Data(c[0]); err != nil || start != c[1] || end != c[2] {
			t.Errorf("data at %d: %d to %d, %v", c[0], start, end, err)
		}
	}
	must(t, f.Punch(2*4096, 4096))
	if got := read(t, fsys, "/f"); len(bytes.Trim(got, "\x00")) > 0 {
		t.Error("punched bytes are not zero")
	}
	must(t, m.Close(), f.Close())
}

func TestErrors(t *testing.T) {
	fsys := simdisk.New()
	create(t, fsys)
	must(t, fsys.MkdirAll("/d/e"))
	f, err := fsys.Open("/f", true)
	must(t, err)
	_, errExist := fsys.Create("/f")
	_, errOpen := fsys.Open("/g", false)
	_, errDir := fsys.List("/g")
	for k, c := range [][2]error{
		{errExist, fs.ErrExist}, {errOpen, fs.ErrNotExist}, {errDir, fs.ErrNotExist}, {fsys.Remove("/g"), fs.ErrNotExist},
		{fsys.SyncDir("/g"), fs.ErrNotExist}, {fsys.Rename("/f", "/g/f"), fs.ErrNotExist}, {f.Truncate(0), fs.ErrPermission},
	} {
		if !errors.Is(c[0], c[1]) {
			t.Errorf("case %d: %v, want %v", k, c[0], c[1])
		}
	}
}

// all returns the content of /f in every image that is some subset of the units.
func all(t *testing.T, remains *simdisk.Remains) []string {
	t.Helper()
	var found []string
	for mask := range 1 << len(remains.Units()) {
		image := remains.Image(func(k int) simdisk.Fate {
			return simdisk.Fate{State: mask >> k & 1 * remains.Units()[k].States}
		})
		content := read(t, image, "/f")
		found = append(found, strings.TrimLeft(strings.TrimRight(string(content), "\x00"), "a"))
	}
	return found
}

func TestUnits(t *testing.T) {
	fsys := simdisk.New()
	f, _ := create(t, fsys)
	if n := len(fsys.Remains().Units()); n != 0 {
		t.Errorf("%d units when all is durable", n)
	}
	must(t, write(f, 0, []byte("a")), write(f, 511, []byte("xy")), write(f, 512, []byte("z")), f.Truncate(8200))
	_, err := fsys.Create("/g")
	must(t, err)
	remains := fsys.Remains()
	want := []simdisk.Unit{
		{Kind: simdisk.UnitName, Name: "create g", States: 1},
		{Kind: simdisk.UnitSize, Name: "f", States: 1},
		{Kind: simdisk.UnitSector, Name: "f", States: 1},
		{Kind: simdisk.UnitSector, Name: "f", Offset: 512, States: 2},
	}
	if got := remains.Units(); !slices.Equal(got, want) {
		t.Fatalf("units %v, want %v", got, want)
	}
	must(t, fsys.Rename("/g", "/h"), f.Sync())
	if got := fsys.Remains().Units(); len(got) != 2 || got[1].String() != "name g to h" {
		t.Errorf("units %v after the sync", got)
	}
	different := all(t, remains) // as it was then
	slices.Sort(different)
	if different = slices.Compact(different); len(different) != 4 {
		t.Errorf("%d contents, want 4", len(different))
	}
}

func TestFates(t *testing.T) {
	fsys := simdisk.New()
	f, _ := create(t, fsys)
	must(t, write(f, 0, bytes.Repeat([]byte("b"), 512)), write(f, 0, bytes.Repeat([]byte("c"), 512)))
	remains := fsys.Remains()
	for _, c := range []struct {
		fate  simdisk.Fate
		first string // 8 bytes each: of the start and of the end
		last  string
	}{
		{simdisk.Fate{}, "aaaaaaaa", "aaaaaaaa"},
		{simdisk.Fate{State: 1}, "bbbbbbbb", "bbbbbbbb"},
		{simdisk.Fate{State: 2}, "cccccccc", "cccccccc"},
		{simdisk.Fate{State: 2, Tear: 8}, "cccccccc", "aaaaaaaa"},
		{simdisk.Fate{State: 1, Tear: -504}, "aaaaaaaa", "bbbbbbbb"},
	} {
		got := read(t, remains.Image(func(int) simdisk.Fate { return c.fate }), "/f")
		if string(got[:8]) != c.first || string(got[504:512]) != c.last || got[512] != 'a' {
			t.Errorf("%+v: %s to %s", c.fate, got[:8], got[504:512])
		}
	}
}

func TestFingerprint(t *testing.T) {
	fsys := simdisk.New()
	f, _ := create(t, fsys)
	seen := map[uint64]bool{fsys.Fingerprint(): true}
	differs := func(what string) {
		t.Helper()
		if sum := fsys.Fingerprint(); seen[sum] {
			t.Errorf("%s does not show", what)
		} else {
			seen[sum] = true
		}
	}
	must(t, write(f, 7000, []byte("x")))
	differs("a store")
	must(t, write(f, 7008, []byte("x")))
	differs("its place")
	must(t, f.Truncate(8191))
	differs("a length")
	must(t, fsys.Rename("/f", "/g"))
	differs("a name")
	remains := fsys.Remains()
	image := remains.Image(func(k int) simdisk.Fate { return simdisk.Fate{State: remains.Units()[k].States} })
	if image.Fingerprint() != fsys.Fingerprint() {
		t.Error("an image that lost nothing differs")
	}
	before := image.Fingerprint()
	g, err := image.Open("/g", false)
	must(t, err, g.Truncate(3*4096), g.Truncate(8191))
	if image.Fingerprint() != before {
		t.Error("pages of zeros show")
	}
	if image := fsys.Remains().Image(func(int) simdisk.Fate { return simdisk.Fate{} }); seen[image.Fingerprint()] == false {
		t.Error("an image that lost all differs from what was durable")
	}
}

func TestWatch(t *testing.T) {
	fsys := simdisk.New()
	f, m := create(t, fsys)
	var seen []string
	fsys.Watch(func(s simdisk.Step) {
		seen = append(seen, fmt.Sprintf("%s %s %v %d", s.Op, s.Name, s.Changed, len(s.Remains().Units())))
	})
	must(t, write(f, 0, []byte("x")), write(f, 0, []byte("x")), m.Sync(0, 1), m.Sync(0, 1), m.Sync(0, 1))
	fsys.CutAt(1)
	_ = m.Sync(0, 1)
	want := []string{"write /f true 0", "write /f true 1", "msync /f false 1", "msync /f true 0", "msync /f false 0"}
	if !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

func TestFreedMemoryIsZero(t *testing.T) {
	for range 3 {
		fsys := simdisk.New()
		f, err := fsys.Create("/f")
		must(t, err, f.Truncate(8192))
		m, err := f.Map(8192)
		must(t, err)
		if len(bytes.Trim(m.Bytes(), "\x00")) > 0 {
			t.Fatal("a new file is not zero")
		}
		must(t, write(f, 100, bytes.Repeat([]byte("x"), 5000)))
		image := fsys.Remains().Image(func(int) simdisk.Fate { return simdisk.Fate{State: 1} })
		fsys.Free()
		if got := read(t, image, "/f"); got[100] != 'x' {
			t.Fatal("the image went with it")
		}
		image.Free()
	}
}
