package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/repair"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// contentOf returns what the files of a directory hold.
func contentOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	content := make(map[string]string)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		p, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		content[e.Name()] = string(p)
	}
	return content
}

// repairedOf runs repair and returns its report.
func repairedOf(t *testing.T, code int, args ...string) (r repair.Report) {
	t.Helper()
	got, out, errs := execute(append([]string{"repair", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || got != code {
		t.Fatalf("repair %v: exit code %d, want %d, %v:\n%s%s", args, got, code, err, out, errs)
	}
	return r
}

// doRepair rehearses and repairs the log in dir, and checks all that a repair
// promises: nothing changes before --yes; what changes is in the backup, as it was;
// verify, Open and a second repair find nothing wrong; and the entries are those of
// want up to last.
func doRepair(t *testing.T, dir string, key string, last uint64, want []*raftpb.Entry, flags ...string) repair.Report {
	t.Helper()
	args := append([]string{dir}, flags...)
	verifyArgs := []string{dir}
	if key != "" {
		file := keyFile(t, key)
		args, verifyArgs = append(args, "--key-file", file), append(verifyArgs, "--key-file", file)
	}
	before, hash := contentOf(t, dir), hashOf(t, dir)
	code, _, _ := execute(append([]string{"verify"}, verifyArgs...)...)
	plan := repairedOf(t, code, append(args, "--dry-run")...)
	if hashOf(t, dir) != hash {
		t.Error("--dry-run changed the log")
	}
	backup := filepath.Join(t.TempDir(), "backup")
	ends := exitOK
	if plan.Loses() {
		ends = exitLost
	}
	r := repairedOf(t, ends, append(args, "--yes", "--backup-dir", backup)...)
	if plan.After != r.After || fmt.Sprint(plan.Lost) != fmt.Sprint(r.Lost) || !plan.Needed || plan.Done || !r.Done || r.Backup != backup {
		t.Errorf("rehearsed %+v, done %+v", plan, r)
	}
	after, saved := contentOf(t, dir), contentOf(t, backup)
	for name, content := range before {
		if after[name] != content && saved[name] != content {
			t.Errorf("%s as it was is neither in the log nor in the backup", name)
		}
	}
	if saved[repair.ManifestName] == "" || len(saved) != len(r.Changed)+1 {
		t.Errorf("the backup has %d files, changed are %v", len(saved), r.Changed)
	}
	verified(t, exitOK, verifyArgs...)
	hash = hashOf(t, dir)
	if again := repairedOf(t, exitOK, append(args, "--yes")...); again.Needed || hashOf(t, dir) != hash {
		t.Errorf("there was something to do again: %+v", again)
	}
	expectEntries(t, dir, key, r.After.First, last, want)
	return r
}

// expectEntries opens the log and compares its entries with those of want.
func expectEntries(t *testing.T, dir, key string, first, last uint64, want []*raftpb.Entry) {
	t.Helper()
	var k []byte
	if key != "" {
		k = []byte(key)
	}
	wal, err := open(t, dir, k)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wal.LastIndex(); got != last || err != nil {
		t.Fatalf("the last entry is %d, want %d, %v", got, last, err)
	}
	if first == 0 || first > last {
		return
	}
	got, err := oracle.Entries(wal, first, last+1)
	if err != nil || len(got) != int(last-first+1) {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	for k, e := range got {
		w := want[e.GetIndex()-1]
		if e.String() != w.String() || !bytes.Equal(e.Data, w.Data) || (e.Type == nil) != (w.Type == nil) {
			t.Errorf("entry %d is %v, want %v", first+uint64(k), e, w)
		}
	}
	must(t, wal.Save(nil, entriesOf(last+1, last+3, 9), nil))
	must(t, wal.Close())
}

// smallEntries are the entries of a small log, those that are compacted among them.
func smallEntries(t *testing.T) []*raftpb.Entry {
	es := append(entriesOf(1, 7, 1), entriesOf(8, 9, 2)...)
	es = append(es, confChange3(t, 10, 2), entriesOf(11, 11, 2)[0])
	return append(es, entriesOf(12, 20, 3)...)
}

func TestRepair(t *testing.T) {
	const record = entryfile.DataStart + 3*56 // of entry 4
	zeros := make([]byte, page.Size)
	flip := func(name string, at int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) { flipByte(t, dir, name, at) }
	}
	zero := func(name string, at int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) { edit(t, dir, name, at, zeros...) }
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, name))) }
	}
	truncate := func(name string, size int64) func(*testing.T, string) {
		return func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, name), size)) }
	}
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		last   uint64 // entry after the repair
		lost   string // range
	}{
		"slot":                       {flip("00001.wal", 5*32+3), 20, ""},
		"slot of a compacted entry":  {flip("00001.wal", 3), 20, ""},
		"slot of the last file":      {flip("00002.wal", 32+3), 20, ""},
		"slots zeroed":               {zero("00001.wal", 0), 20, ""},
		"header page in use":         {flip("00001.wal", entryfile.HeaderPages[1]+70), 20, ""},
		"other header page":          {flip("00001.wal", entryfile.HeaderPages[0]+70), 20, ""},
		"header page zeroed":         {zero("00001.wal", entryfile.HeaderPages[0]), 20, ""},
		"page 0 of wal.meta":         {flip("wal.meta", 40), 20, ""},
		"page 1 of wal.meta":         {flip("wal.meta", page.Size+513), 20, ""},
		"page 2 of wal.meta":         {flip("wal.meta", 2*page.Size+513), 20, ""},
		"page 0 of wal.meta zeroed":  {zero("wal.meta", 0), 20, ""},
		"wal.meta cut behind page 0": {truncate("wal.meta", page.Size+10), 20, ""},
		"compacted record":           {flip("00001.wal", record-20), 20, ""},
		"superseded record":          {flip("00001.wal", record+4*56+40), 20, ""},
		"record":                     {flip("00001.wal", record+2*56+40), 5, "6-20"},
		"record header":              {flip("00001.wal", record+2*56+20), 5, "6-20"},
		"first record":               {flip("00001.wal", record+40), 3, "4-20"},
		"record in the last file":    {flip("00002.wal", entryfile.DataStart+56+40), 12, "13-20"},
		"first record of last file":  {flip("00002.wal", entryfile.DataStart+40), 11, "12-20"},
		"last record":                {flip("00002.wal", entryfile.DataStart+8*56+40), 19, "20-20"},
		"records zeroed":             {zero("00002.wal", entryfile.DataStart), 11, "12-20"},
		"both header pages": {func(t *testing.T, dir string) {
			zero("00001.wal", entryfile.HeaderPages[0])(t, dir)
			zero("00001.wal", entryfile.HeaderPages[1])(t, dir)
		}, 3, "4-20"},
		"first file missing":      {remove("00001.wal"), 3, "4-20"},
		"last file missing":       {remove("00002.wal"), 11, "12-12"},
		"file cut in the records": {truncate("00001.wal", record+3*56+10), 6, "7-20"},
		"file cut in the index":   {truncate("00001.wal", 4096), 3, "4-20"},
		"file emptied":            {truncate("00002.wal", 0), 11, "12-12"},
		"file of another log":     {func(t *testing.T, dir string) { copyFile(t, closedLog(t, nil), "00002.wal", dir, "00002.wal") }, 11, "12-12"},
		"file too many":           {func(t *testing.T, dir string) { copyFile(t, dir, "00002.wal", dir, "00003.wal") }, 20, "more"},
		"dead and live records": {func(t *testing.T, dir string) {
			flip("00001.wal", record-20)(t, dir)
			flip("00002.wal", entryfile.DataStart+3*56+40)(t, dir)
		}, 14, "15-20"},
		"many places": {func(t *testing.T, dir string) {
			flip("wal.meta", 50)(t, dir)
			flip("00001.wal", 40)(t, dir)
			flip("00001.wal", record-20)(t, dir)
			flip("00002.wal", 70)(t, dir)
		}, 20, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := closedLog(t, nil)
			test.damage(t, dir)
			r := doRepair(t, dir, "", test.last, smallEntries(t))
			lost := ""
			switch {
			case r.Lost != nil:
				lost = fmt.Sprintf("%d-%d", r.Lost.First, r.Lost.Last)
			case r.More:
				lost = "more"
			}
			if lost != test.lost || (lost != "") != strings.Contains(r.Next, "add it anew") {
				t.Errorf("lost %q, want %q: %+v", lost, test.lost, r)
			}
		})
	}
}

// TestRepairEncrypted: with the key all is as in a plain log; a new file has a key of
// its own.
func TestRepairEncrypted(t *testing.T) {
	key := strings.Repeat("a", 32)
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		last   uint64
	}{
		"slot":          {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", 3) }, 20},
		"page 0":        {func(t *testing.T, dir string) { flipByte(t, dir, "wal.meta", 50) }, 20},
		"dead record":   {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", entryfile.DataStart+40) }, 20},
		"record":        {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", recordAt(t, dir, keyFile(t, key), 6)+40) }, 5},
		"forged record": {func(t *testing.T, dir string) { forge(t, dir, "00001.wal", recordAt(t, dir, keyFile(t, key), 6)) }, 5},
		"header and slot": {func(t *testing.T, dir string) {
			flipByte(t, dir, "00002.wal", entryfile.HeaderPages[0]+70)
			flipByte(t, dir, "00002.wal", 3)
		}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := closedLog(t, []byte(key))
			test.damage(t, dir)
			doRepair(t, dir, key, test.last, smallEntries(t))
		})
	}
	dir := closedLog(t, []byte(key))
	flipByte(t, dir, "00001.wal", 3)
	hash := hashOf(t, dir)
	expectParts(t, exitNoLook, []string{"repair", dir, "--yes"}, "no key was given")
	expectParts(t, exitNoLook, []string{"repair", dir, "--yes", "--key-file", keyFile(t, strings.Repeat("b", 32))}, "unwrapped")
	expectParts(t, exitNoLook, []string{"repair", closedLog(t, nil), "--yes", "--key-file", keyFile(t, key)}, "not encrypted")
	if hashOf(t, dir) != hash {
		t.Error("the log was changed without its key")
	}
}

// crashedLog returns a copy of a log whose owner died.
func crashedLog(t *testing.T) string {
	t.Helper()
	live, dir := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "copy")
	wal := smallLog(t, live, nil)
	copyDir(t, live, dir)
	must(t, wal.Close())
	return dir
}

// TestRepairUnclean: a torn tail is dropped, what was promised is told from it, and
// a log that was only not closed needs no repair.
func TestRepairUnclean(t *testing.T) {
	dir := crashedLog(t)
	hash := hashOf(t, dir)
	expectParts(t, exitOK, []string{"repair", dir, "--yes"}, "nothing to repair")
	if hashOf(t, dir) != hash {
		t.Error("the log was changed")
	}
	edit(t, dir, "00002.wal", entryfile.DataStart+9*56, []byte("half a record that was never promised")...)
	if r := doRepair(t, dir, "", 20, smallEntries(t)); r.Lost != nil || r.More || r.Damaged {
		t.Errorf("%+v", r)
	}
	dir = crashedLog(t)
	flipByte(t, dir, "00002.wal", entryfile.DataStart+5*56+40)
	if r := doRepair(t, dir, "", 16, smallEntries(t)); r.Lost == nil || r.Lost.First != 17 {
		t.Errorf("%+v", r)
	}
	dir = crashedLog(t)
	must(t, os.Truncate(filepath.Join(dir, "wal.meta"), page.Size+10)) // what is gone may have been newer
	expectParts(t, exitFailed, []string{"repair", dir, "--yes"}, "cannot be repaired", "restore a backup")
	dir = crashedLog(t)
	flipByte(t, dir, "wal.meta", 50)
	flipByte(t, dir, "00001.wal", 3)
	doRepair(t, dir, "", 20, smallEntries(t))
}

// TestRepairDoesNotBringBack: entries that were replaced do not come back when what
// replaced them is lost.
func TestRepairDoesNotBringBack(t *testing.T) {
	live, dir := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "copy")
	wal := smallLog(t, live, nil) // 12 is in file 1, too
	save(t, wal, 4, entriesOf(9, 11, 4)...)
	copyDir(t, live, dir)
	must(t, wal.Close())
	flipByte(t, dir, "00003.wal", entryfile.DataStart+40)
	r := doRepair(t, dir, "", 8, smallEntries(t))
	if r.Lost == nil || r.Lost.First != 9 || r.Lost.Last != 11 {
		t.Errorf("%+v", r)
	}
}

// inUse returns the directory of a log as it was when the process died, with entries 1 to first
// of term 1, and then those that replaced some, all synced; between them it may have been closed, which
// leaves slots that say nothing any more.
func inUse(t *testing.T, closed bool, first uint64, then ...*raftpb.Entry) string {
	t.Helper()
	live, dir := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "copy")
	open := func() *mmapwal.DiskStorage {
		opts := quiet()
		opts.FileDataSize = 1 << 20
		wal, err := mmapwal.Open(live, opts)
		must(t, err)
		return wal
	}
	wal := open()
	save(t, wal, 1, entriesOf(1, first, 1)...)
	if closed {
		must(t, wal.Close())
		wal = open()
	}
	save(t, wal, 2, then...)
	save(t, wal, 3) // says that they were synced
	copyDir(t, live, dir)
	must(t, wal.Close())
	return dir
}

// TestRepairInUse is about damage in a file that was in use: no entry that was replaced comes
// back unless that is said, none that is whole is dropped, and none that does not count is called lost.
// Those in front of the damage are what they were if one of the same term stands behind it.
func TestRepairInUse(t *testing.T) {
	const size = 56 // of a record
	for _, closed := range []bool{false, true} {
		for k, last := range []uint64{4, 5, 6, 7} { // the k-th record of those that replace is damaged
			dir := inUse(t, closed, 9, entriesOf(5, 8, 2)...)
			flipByte(t, dir, "00001.wal", entryfile.DataStart+int64(9+k)*size+40)
			expectParts(t, exitFailed, []string{"verify", dir}, fmt.Sprintf("entry %d", last+1))
			r := doRepair(t, dir, "", last, append(entriesOf(1, 4, 1), entriesOf(5, 8, 2)...))
			if r.Lost == nil || r.Lost.First != last+1 || r.Lost.Last != 8 || r.Stale != (k == 0 || k == 3) {
				t.Errorf("closed before %t, record %d: lost %+v, stale %t", closed, k, r.Lost, r.Stale)
			}
		}

		dir := inUse(t, closed, 9, entriesOf(5, 20, 2)...)
		flipByte(t, dir, "00001.wal", entryfile.DataStart+19*size+40) // 15
		r := doRepair(t, dir, "", 14, append(entriesOf(1, 4, 1), entriesOf(5, 20, 2)...))
		if r.Lost == nil || r.Lost.First != 15 || r.Lost.Last != 20 {
			t.Errorf("closed before %t: lost %+v", closed, r.Lost)
		}

		dir = inUse(t, closed, 10, entriesOf(8, 9, 2)...)
		flipByte(t, dir, "00001.wal", entryfile.DataStart+9*size+40) // 10, which was replaced
		if r := doRepair(t, dir, "", 9, append(entriesOf(1, 7, 1), entriesOf(8, 9, 2)...)); r.Lost != nil {
			t.Errorf("closed before %t: lost %+v", closed, r.Lost)
		}

		dir = inUse(t, closed, 9, entriesOf(5, 8, 2)...)
		flipByte(t, dir, "00001.wal", entryfile.DataStart+9*size+6) // the header of 5, so that nothing tells it
		if r := repairedOf(t, exitFailed, dir, "--dry-run"); !r.Stale {
			t.Errorf("closed before %t: %+v", closed, r)
		}
	}
}

// TestRepairCovered: damage to entries that the snapshot covers loses nothing.
func TestRepairCovered(t *testing.T) {
	build := func(t *testing.T) string {
		dir := filepath.Join(t.TempDir(), "log")
		must(t, smallLog(t, dir, nil).Close())
		opts := quiet()
		opts.RetainEntries = 10
		wal, err := mmapwal.Open(dir, opts)
		must(t, err)
		must(t, wal.CreateSnapshot(14, nil, []byte("state")))
		must(t, wal.Close())
		return dir
	}
	for name, damage := range map[string]func(t *testing.T, dir string){
		"record":       func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", recordOf(t, dir, 7)+40) },
		"file missing": func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "00001.wal"))) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := build(t)
			damage(t, dir)
			r := doRepair(t, dir, "", 20, smallEntries(t))
			if r.Lost != nil || r.More || r.After.First != 15 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestRepairCleared: data that was cleared stays so, and data that was written anew
// stays there.
func TestRepairCleared(t *testing.T) {
	want := smallEntries(t)[:14]
	for _, e := range want {
		if e.Type == nil {
			e.Data = nil
		}
	}
	want = append(want, entriesOf(15, 18, 4)...)
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		last   uint64
	}{
		"slots":         {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", 3); flipByte(t, dir, "00002.wal", 3) }, 18},
		"spared record": {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", recordOf(t, dir, 10)+33) }, 9},
		"new record":    {func(t *testing.T, dir string) { flipByte(t, dir, "00002.wal", recordOf(t, dir, 17)+40) }, 16},
		"old record":    {func(t *testing.T, dir string) { flipByte(t, dir, "00002.wal", entryfile.DataStart+3*56+40) }, 18},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "log")
			wal := smallLog(t, dir, nil)
			must(t, wal.Close())
			clearBelow(t, dir, 16)
			wal, err := open(t, dir, nil)
			must(t, err)
			save(t, wal, 4, entriesOf(15, 18, 4)...)
			must(t, wal.Close())
			_ = os.Remove(filepath.Join(dir, "00003.spare")) // which an Open uses
			test.damage(t, dir)
			doRepair(t, dir, "", test.last, want)
		})
	}
}

// clearBelow clears the data of a log that is closed, as earlier versions did without a snapshot
// that covers it.
func clearBelow(t *testing.T, dir string, below uint64) {
	t.Helper()
	f, err := metafile.Open(vfs.OS(), dir, false)
	must(t, err)
	m := f.Meta()
	m.ClearedBelow, m.ClearedEnd = below, metafile.End{File: m.Durable.File, Offset: m.Durable.Offset}
	must(t, f.Commit(m))
	must(t, f.Close())
}

// TestRepairImpossible: what cannot be repaired is said, with what to do, and nothing
// is changed.
func TestRepairImpossible(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		says   string
	}{
		"wal.meta missing": {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "wal.meta"))) }, "restore a backup"},
		"wal.meta zeroed":  {func(t *testing.T, dir string) { edit(t, dir, "wal.meta", 0, make([]byte, 4*page.Size)...) }, "restore a backup"},
		"pages 0 and 1": {func(t *testing.T, dir string) {
			flipByte(t, dir, "wal.meta", 50)
			flipByte(t, dir, "wal.meta", page.Size+50)
		}, "restore a backup"},
		"wal.meta cut in page 0": {func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "wal.meta"), 1000)) }, "restore a backup"},
		"two names":              {func(t *testing.T, dir string) { copyFile(t, dir, "00001.wal", dir, "1.wal") }, "move the other away"},
		"Dgraph, maybe":          {func(t *testing.T, dir string) { edit(t, dir, "wal.meta", 521, 100) }, "--not-dgraph"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := closedLog(t, nil)
			test.damage(t, dir)
			hash := hashOf(t, dir)
			beside, err := os.ReadDir(filepath.Dir(dir))
			must(t, err)
			for _, flag := range []string{"--dry-run", "--yes"} {
				expectParts(t, exitFailed, []string{"repair", dir, flag}, "cannot be repaired", "nothing was changed", test.says, "NOT REPAIRED")
			}
			now, err := os.ReadDir(filepath.Dir(dir))
			must(t, err)
			if hashOf(t, dir) != hash || len(now) != len(beside) {
				t.Error("something was changed")
			}
		})
	}
	dir := closedLog(t, nil)
	edit(t, dir, "wal.meta", 521, 100)
	doRepair(t, dir, "", 20, smallEntries(t), "--not-dgraph")
}

// TestRepairSnapshot: a damaged snapshot file stays damaged; the rest is repaired.
func TestRepairSnapshot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	wal := smallLog(t, dir, nil)
	must(t, wal.CreateSnapshot(5, nil, bytes.Repeat([]byte("s"), 3000)))
	must(t, wal.Close())
	const snap = "0000000000000001-0000000000000005.snap"
	flipByte(t, dir, snap, 100)
	hash := hashOf(t, dir)
	expectParts(t, exitFailed, []string{"repair", dir, "--yes"}, "no repair heals this damage", "have a snapshot sent by the leader")
	if hashOf(t, dir) != hash {
		t.Error("the log was changed")
	}
	flipByte(t, dir, "00001.wal", 6*32)
	backup := filepath.Join(t.TempDir(), "backup")
	expectParts(t, exitFailed, []string{"repair", dir, "--yes", "--backup-dir", backup}, "NOT REPAIRED: "+snap, "written anew from the records", "damage in 1 place remains")
	if r := verified(t, exitFailed, dir); r.Damage != 1 || r.Problems[0].File != snap {
		t.Errorf("%+v", r.Problems)
	}
	must(t, os.Truncate(filepath.Join(dir, snap), 1000))
	for range 2 {
		expectParts(t, exitFailed, []string{"repair", dir, "--yes"}, "cannot be repaired", "restore the file")
		if _, out, _ := execute("verify", dir); strings.Contains(out, "leader") || !strings.Contains(out, "any intact copy of it fits") {
			t.Errorf("no leader can send a snapshot to a node that does not start:\n%s", out)
		}
		_ = os.Remove(filepath.Join(dir, snap)) // and once more
	}
}

func TestRepairText(t *testing.T) {
	dir := closedLog(t, nil)
	t.Chdir(filepath.Dir(dir))
	expectParts(t, exitOK, []string{"repair", "log", "--dry-run"}, "nothing to repair: entries 4-20 (17)")
	flipByte(t, dir, "00001.wal", recordOf(t, dir, 6)+40)
	expectParts(t, exitFailed, []string{"repair", "log", "--dry-run"},
		"00001.wal\n  damage: 00001.wal, offset 1048856, entry 6: the record is damaged",
		"would be: written anew with the 2 entries that can be read and count", "entries before: 4-11 (8, of which 7 can be read), after: 4-5 (2)",
		"would be: set aside as 00002.wal.corrupt", "lost: 6-20", "would be copied first: 00001.wal, 00002.wal, wal.meta", "nothing was changed")
	expectParts(t, exitLost, []string{"repair", "log", "--yes"}, "done: written anew", "lost: 6-20", "the files as they were are in "+dir+".repair-", "next: ", "add it anew")
}

// TestRepairRefuses: a live owner, nobody to ask, a directory that is taken.
func TestRepairRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	wal := smallLog(t, dir, nil)
	for _, flag := range []string{"--dry-run", "--yes"} {
		expectParts(t, exitNoLook, []string{"repair", dir, flag}, "another process has the log open")
	}
	must(t, wal.Close())
	flipByte(t, dir, "00001.wal", 3)
	hash := hashOf(t, dir)
	expectParts(t, exitUsage, []string{"repair", dir}, "nobody to ask", "--yes")
	expectParts(t, exitUsage, []string{"repair", dir, "--yes", "--dry-run"}, "dry-run")
	expectParts(t, exitUsage, []string{"repair"}, "--help")
	taken := t.TempDir()
	must(t, os.WriteFile(filepath.Join(taken, "precious"), nil, 0o600))
	expectParts(t, exitFailed, []string{"repair", dir, "--yes", "--backup-dir", taken}, "not empty", "nothing has changed")
	expectParts(t, exitFailed, []string{"repair", dir, "--yes", "--backup-dir", filepath.Join(dir, "backup")}, "inside of the log's directory")
	none := filepath.Join(t.TempDir(), "none")
	expectParts(t, exitNoLook, []string{"repair", none, "--yes"}, "no such file")
	expectParts(t, exitNoLook, []string{"repair", t.TempDir(), "--yes"}, "there is no log")
	if _, err := os.Stat(none); !errors.Is(err, os.ErrNotExist) || hashOf(t, dir) != hash {
		t.Errorf("something was changed: %v", err)
	}
}

// TestRepairStrangers: what is not the log's is left alone.
func TestRepairStrangers(t *testing.T) {
	dir := closedLog(t, nil)
	must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("precious"), 0o600))
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	flipByte(t, dir, "00001.wal", 3)
	r := repairedOf(t, exitOK, dir, "--yes", "--backup-dir", filepath.Join(t.TempDir(), "backup"))
	for _, name := range []string{"lost+found", "notes.txt", "pipe"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil || slices.Contains(r.Changed, name) {
			t.Errorf("%s: %v, changed %v", name, err, r.Changed)
		}
	}
}

func TestConfirmed(t *testing.T) {
	for answer, want := range map[string]bool{"y\n": true, " YES \n": true, "y": true, "n\n": false, "\n": false, "": false, "yesno\n": false} {
		var out bytes.Buffer
		if confirmed(strings.NewReader(answer), &out) != want || !strings.Contains(out.String(), "[y/N]") {
			t.Errorf("%q: not %v", answer, want)
		}
	}
}
