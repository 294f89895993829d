package fuzz

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/damage"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// The edits of a directory.
const (
	editWrite  = iota
	editFlip   // a bit
	editZero   // some sectors
	editCopy   // a page to another place
	editCut    // or lengthen a file
	editRename // over another file, perhaps
	editRemove
	editDuplicate
	editOlder // takes the file from an earlier time
	editSeal  // gives a page, or records, a valid checksum
	edits
)

// directory is a disk that is edited as the input says.
type directory struct {
	disk   *damage.Disk
	log    *damage.Log
	input  []byte
	forged bool // something has got a checksum that the log did not write
}

func (d *directory) next() (b int) {
	if len(d.input) > 0 {
		b, d.input = int(d.input[0]), d.input[1:]
	}
	return b
}

// names are those that edits choose from: those there are, and some more.
func (d *directory) name() string {
	infos, _ := d.disk.List(damage.Dir)
	names := make([]string, 0, len(infos)+9)
	for _, info := range infos {
		names = append(names, info.Name)
	}
	names = append(names, "wal.meta", "wal.meta.tmp", "00001.wal", "00005.wal", "1.wal", "00003.wal.tmp", "raft.db",
		"00002.wal.corrupt", "0000000000000001-0000000000000003.snap")
	return names[d.next()%len(names)]
}

func (d *directory) path() string { return filepath.Join(damage.Dir, d.name()) }

// offsets of pages that logs use; the input picks one, and a byte in it.
var usedPages = []int64{0, 4096, 8192, 12288, entryfile.DataStart - 8192, entryfile.DataStart - 4096, entryfile.DataStart, entryfile.DataStart + 4096}

func (d *directory) offset() int64 {
	return usedPages[d.next()%len(usedPages)] + int64(d.next()<<8|d.next())%page.Size
}

// edit makes one edit. What is not possible is left out.
func (d *directory) edit() {
	op, path := d.next()%edits, d.path()
	switch op {
	case editRename:
		_ = d.disk.Rename(path, d.path())
		return
	case editRemove:
		_ = d.disk.Remove(path)
		return
	case editOlder:
		m := d.log.Moments[d.next()%len(d.log.Moments)]
		if c := m.Image[filepath.Base(path)]; c != nil {
			d.replace(path, c.Bytes())
		}
		return
	}
	f, err := d.disk.Open(path, false)
	if err != nil {
		return
	}
	defer f.Close()
	size, _ := f.Size()
	at := min(d.offset(), size)
	p := make([]byte, min(page.Size, size-at))
	_, _ = f.ReadAt(p, at)
	switch op {
	case editWrite:
		n := min(d.next(), len(d.input), len(p))
		_, _ = f.WriteAt(d.input[:n], at)
		d.input = d.input[n:]
	case editFlip:
		if len(p) > 0 {
			_, _ = f.WriteAt([]byte{p[0] ^ 1<<(d.next()%8)}, at)
		}
	case editZero:
		n := min(int64(len(p)), int64(512*(1+d.next()%8)))
		_, _ = f.WriteAt(make([]byte, n), at)
	case editCopy:
		_, _ = f.WriteAt(p, min(d.offset(), max(size-int64(len(p)), 0)))
	case editCut:
		_ = f.Truncate(at + int64(d.next()%2)*4096)
	case editDuplicate:
		all := make([]byte, size)
		_, _ = f.ReadAt(all, 0)
		d.replace(d.path(), all)
	case editSeal:
		d.seal(p)
		_, _ = f.WriteAt(p, at)
	}
}

func (d *directory) replace(path string, content []byte) {
	_ = d.disk.Remove(path)
	if f, err := d.disk.Create(path); err == nil {
		_, _ = f.WriteAt(content, 0)
	}
}

// seal gives p the checksum of what it looks like.
func (d *directory) seal(p []byte) {
	d.forged = true
	switch used := len(p); {
	case used < 1024:
	case string(p[24:32]) == "RAFTWALm":
		if n := int(page.Order.Uint32(p[128:])); n >= 1044 && n <= used {
			used = n
		}
		page.Seal(p[:used], 60)
	case string(p[:8]) == "RAFTWALe":
		page.Seal(p, 12)
	case string(p[:8]) == "RAFTWALs":
		page.Seal(p[12:], 0)
	default:
		n := min(int(page.Order.Uint32(p[28:])), used-32)
		page.Order.PutUint32(p, page.Sum(page.Order.Uint32(p[24:]), p[4:32+n])) // hardly ever the salt
	}
}

// FuzzDirectory edits the files of a log, and opens it under each policy: what it
// shows was saved, or an error says what is wrong.
func FuzzDirectory(f *testing.F) {
	logs := directoryLogs(f)
	for which := range len(logs) {
		f.Add(byte(which), []byte(nil))
		f.Add(byte(which), []byte{editFlip, 1, 6, 0, 40, 3})
		f.Add(byte(which), []byte{editOlder, 1, 4, editOlder, 4, 9})
		f.Add(byte(which), []byte{editZero, 4, 0, 0, 0, 0, editZero, 4, 1, 0, 0, 0})
		f.Add(byte(which), []byte{editRemove, 1, editDuplicate, 2, 0, 0, 0, 1})
		f.Add(byte(which), []byte{editWrite, 0, 0, 0, 80, 4, 0, 0, 0, 9, editSeal, 0, 0, 0, 0})
	}
	disk := damage.NewDisk(damage.Dir)
	f.Fuzz(func(t *testing.T, which byte, input []byte) {
		if len(input) > 200 {
			return
		}
		log := logs[int(which)%len(logs)]
		for _, edit := range []func(*mmapwal.Options){
			func(*mmapwal.Options) {},
			func(o *mmapwal.Options) { o.ReadOnly = true },
			func(o *mmapwal.Options) { o.Recovery = mmapwal.KeepValidPrefix },
		} {
			disk.Load(log.Now().Image)
			d := &directory{disk: disk, log: log, input: input}
			for range 8 {
				if len(d.input) > 0 {
					d.edit()
				}
			}
			opts := damage.Options()
			edit(opts)
			checkDirectory(t, d, opts)
		}
	})
}

// directoryLogs returns logs that were closed and that were not.
func directoryLogs(f *testing.F) []*damage.Log {
	closed, file := damage.Build(1, mmapwal.HardSync, 900), damage.Build(1, mmapwal.HardSync, 4000)
	killed, noSync := damage.Build(1, mmapwal.HardSync, 4000), damage.Build(1, mmapwal.NoSync, 900)
	closed.Close()
	file.Close()
	logs := []*damage.Log{closed, file, killed, noSync}
	for _, l := range logs {
		if l.Err() != nil {
			f.Fatal(l.Err())
		}
	}
	return logs
}

func checkDirectory(t *testing.T, d *directory, opts *mmapwal.Options) {
	changes, before := d.disk.Changes, d.disk.Image()
	s, err := damage.Open(d.disk, 5, opts)
	if err != nil {
		wantTyped(t, d, err)
		if opts.Recovery != mmapwal.KeepValidPrefix && d.disk.Changes != changes && !sameInUse(before, d.disk.Image()) {
			t.Errorf("open changed something, and failed: %v", err)
		}
		return
	}
	defer func() { _ = s.Close() }()
	r, err := damage.Read(s)
	if err != nil {
		if !d.forged {
			t.Errorf("read: %v", err)
		}
		return
	}
	for _, err := range r.Errs {
		wantTyped(t, d, err)
	}
	if d.forged {
		_ = s.Save(nil, damage.Entries(r.Last()+1, r.Last()+2, 99), nil)
		return
	}
	if opts.ReadOnly && d.disk.Changes != changes {
		t.Error("a log that was opened for reading was changed")
	}
	if never := d.log.NeverSaved(r); never != "" {
		t.Error(never)
	}
	for k, e := range r.Entries {
		if k > 0 && e != nil && r.Entries[k-1] != nil && e.GetTerm() < r.Entries[k-1].GetTerm() {
			t.Errorf("term %d behind %d at entry %d", e.GetTerm(), r.Entries[k-1].GetTerm(), e.GetIndex())
		}
	}
	if opts.ReadOnly {
		return
	}
	if err := s.Save(nil, damage.Entries(r.Last()+1, r.Last()+2, 99), nil); err != nil {
		wantTyped(t, d, err)
	}
}

// sameInUse compares two directories, but for the bytes of wal.meta that are not in
// use: Open clears them when it stores a page again.
func sameInUse(a, b damage.Image) bool {
	inUse := func(p []byte) []byte {
		for at := 0; at+page.Size <= len(p); at += page.Size {
			if used := int(page.Order.Uint32(p[at+128:])); used < page.Size {
				clear(p[at+used : at+page.Size])
			}
		}
		return p
	}
	if a["wal.meta"] == nil || b["wal.meta"] == nil {
		return a.Equal(b)
	}
	return a.With("wal.meta", a["wal.meta"].Edit(inUse)).Equal(b.With("wal.meta", b["wal.meta"].Edit(inUse)))
}

// wantTyped: errors are those that the package promises.
func wantTyped(t *testing.T, d *directory, err error) {
	t.Helper()
	for _, want := range []error{mmapwal.ErrCorrupt, mmapwal.ErrForeign, mmapwal.ErrVersion, mmapwal.ErrUnsupported, mmapwal.ErrKeyRequired} {
		if errors.Is(err, want) {
			return
		}
	}
	if errors.Is(err, fs.ErrNotExist) && missing(d.disk.Image()) {
		return
	}
	t.Errorf("error %v; files %v", err, d.disk.Image().Names())
}

// missing: for reading only, there is no log; or names that contradict each other
// leave open what there is.
func missing(img damage.Image) bool {
	return img["wal.meta"] == nil && (img["1.wal"] != nil || !slices.ContainsFunc(img.Names(), func(name string) bool {
		return strings.HasSuffix(name, entryfile.Suffix)
	}))
}
