package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// entriesOf returns entries of a term whose data says which they are.
func entriesOf(from, to, term uint64) (es []*raftpb.Entry) {
	for i := from; i <= to; i++ {
		es = append(es, &raftpb.Entry{Index: new(i), Term: new(term), Data: fmt.Appendf(nil, "entry %d of term %d", i, term)})
	}
	return es
}

// confChange3 is a conf change that adds node 3.
func confChange3(t *testing.T, i, term uint64) *raftpb.Entry {
	t.Helper()
	data, err := proto.Marshal(&raftpb.ConfChange{Type: new(raftpb.ConfChangeAddNode), NodeId: new(uint64(3))})
	if err != nil {
		t.Fatal(err)
	}
	return &raftpb.Entry{Index: new(i), Term: new(term), Type: new(raftpb.EntryConfChange), Data: data}
}

// smallLog makes a log of two files, with a snapshot at 3, a conf change, and
// entries that were replaced within a file and across files. It is left open.
func smallLog(t *testing.T, dir string, key []byte) *mmapwal.DiskStorage {
	t.Helper()
	open := func() *mmapwal.DiskStorage {
		opts := quiet()
		opts.Key, opts.FileDataSize = key, 1<<20
		wal, err := mmapwal.Open(dir, opts)
		if err != nil {
			t.Fatal(err)
		}
		return wal
	}
	wal := open()
	must(t, wal.SetUint(mmapwal.RaftId, 7))
	save(t, wal, 1, entriesOf(1, 9, 1)...)
	save(t, wal, 2, entriesOf(8, 9, 2)...)
	save(t, wal, 2, confChange3(t, 10, 2))
	save(t, wal, 2, entriesOf(11, 12, 2)...)
	crashed := filepath.Join(t.TempDir(), "crashed")
	copyDir(t, dir, crashed)
	must(t, wal.Close())
	copyDir(t, crashed, dir) // so that the next Open begins a new file
	wal = open()
	save(t, wal, 3, entriesOf(12, 20, 3)...)
	must(t, wal.CreateSnapshot(3, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}, []byte("state")))
	return wal
}

func save(t *testing.T, wal *mmapwal.DiskStorage, term uint64, es ...*raftpb.Entry) {
	t.Helper()
	h := &raftpb.HardState{Term: &term, Vote: new(uint64(1)), Commit: new(uint64(2))}
	must(t, wal.Save(h, es, nil))
}

// copyDir copies the files of a directory.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	must(t, os.MkdirAll(to, 0o700))
	entries, err := os.ReadDir(from)
	must(t, err)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(from, e.Name()))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(to, e.Name()), content, 0o600))
	}
}

// closedLog returns the directory of a small log that was closed.
func closedLog(t *testing.T, key []byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "log")
	must(t, smallLog(t, dir, key).Close())
	return dir
}

// hashOf returns a hash of all that a directory holds.
func hashOf(t *testing.T, dir string) string {
	t.Helper()
	sum := sha256.New()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		info, err := e.Info()
		must(t, err)
		_, _ = fmt.Fprintln(sum, e.Name(), info.Mode(), info.ModTime(), len(content))
		_, _ = sum.Write(content)
	}
	return fmt.Sprintf("%x", sum.Sum(nil))
}

// edit changes bytes of a file in place.
func edit(t *testing.T, dir, name string, at int64, p ...byte) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(p, at)
	must(t, errors.Join(err, f.Close()))
}

// flipByte changes one byte of a file.
func flipByte(t *testing.T, dir, name string, at int64) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)
	edit(t, dir, name, at, content[at]^0xff)
}

var logID = regexp.MustCompile(`log ID( +)[0-9a-f]{16}`)

// expect runs a command and compares what it says on standard output.
func expect(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	got, out, errs := execute(args...)
	out = logID.ReplaceAllString(out, "log ID${1}ID")
	if want = strings.TrimPrefix(want, "\n"); got != code || out != want {
		t.Errorf("%v: exit code %d, want %d; got:\n%s\nwant:\n%s\nstandard error:\n%s", args, got, code, out, want, errs)
	}
}

// expectParts runs a command and looks for parts of what it prints.
func expectParts(t *testing.T, code int, args []string, parts ...string) string {
	t.Helper()
	got, out, errs := execute(args...)
	if got != code {
		t.Errorf("%v: exit code %d, want %d:\n%s%s", args, got, code, out, errs)
	}
	for _, part := range parts {
		if !strings.Contains(out+errs, part) {
			t.Errorf("%v: %q is missing in:\n%s%s", args, part, out, errs)
		}
	}
	return out
}

func TestInfo(t *testing.T) {
	dir := closedLog(t, nil)
	t.Chdir(filepath.Dir(dir))
	out := expectParts(t, exitOK, []string{"info", "log"},
		"closed cleanly", "7, 0", "term 3, vote 1, commit 2", "index 3, term 1, 5 B in wal.meta, voters [1 2 3]",
		"4 to 20 (17)", "HardSync", "00001.wal  sealed", "4-11", "00002.wal  open", "12-20")
	if strings.Contains(out, "DAMAGE") {
		t.Errorf("damage in:\n%s", out)
	}
	var l struct {
		Meta  struct{ Clean bool }
		Files []struct {
			Number, First, Last uint64
			Sealed              bool
			Bytes               map[string]int64
		}
	}
	must(t, json.Unmarshal([]byte(expectParts(t, exitOK, []string{"info", "log", "--json"})), &l))
	if len(l.Files) != 2 || !l.Meta.Clean || !l.Files[0].Sealed || l.Files[0].Last != 11 || l.Files[0].Bytes["superseded"] != 200 || l.Files[0].Bytes["compacted"] != 168 {
		t.Errorf("%+v", l)
	}
}

// TestDeadFile: a file that compaction is done with, and could not remove, is no
// damage whatever it holds.
func TestDeadFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	wal := smallLog(t, dir, nil)
	kept := t.TempDir()
	copyFile(t, dir, "00001.wal", kept, "00001.wal")
	must(t, wal.CreateSnapshot(15, nil, bytes.Repeat([]byte("s"), 3000)))
	must(t, wal.Close())
	copyFile(t, kept, "00001.wal", dir, "00001.wal")
	flipByte(t, dir, "00001.wal", entryfile.DataStart+40)
	expectParts(t, exitOK, []string{"info", dir}, "00001.wal", "dead", "16 to 20 (5)", "3000 B in 0000000000000003-000000000000000f.snap")
	expectParts(t, exitOK, []string{"verify", dir}, "compaction is done with the file")
	expectParts(t, exitOK, []string{"map", dir}, "dead", "[=c")
	flipByte(t, dir, "0000000000000003-000000000000000f.snap", 100)
	expectParts(t, exitFailed, []string{"verify", dir}, "damage: 0000000000000003-000000000000000f.snap")
}

func TestVerify(t *testing.T) {
	dir := closedLog(t, nil)
	t.Chdir(filepath.Dir(dir))
	expect(t, exitOK, `
read 2 files with 24 records, 1304 B: entries 4 to 20 (17)
OK: no damage
`, "verify", "log")
}

func TestDump(t *testing.T) {
	dir := closedLog(t, nil)
	expect(t, exitOK, `
9	2	normal	"entry 9 of term 2"
10	2	confchange	{"type":"ConfChangeAddNode","nodeId":"3"}
11	2	normal	"entry 11 of term 2"
12	3	normal	"entry 12 of term 3"
`, "dump", dir, "--from", "9", "--to", "12")
	expect(t, exitOK, `
8	2	normal	17
9	2	normal	17
`, "dump", dir, "--term", "2", "--type", "normal", "--limit", "2", "--data", "len")
	expect(t, exitOK, "4\t1\tnormal\t656e7472792034206f66207465726d2031\n", "dump", dir, "--limit", "1", "--data", "hex")
	expect(t, exitOK, `
10	2	confchange	{"type":"ConfChangeAddNode","nodeId":"3"}
11	2	normal	36 digits
12	3	normal	36 digits
`, "dump", dir, "--from", "10", "--to", "12", "--decode", `while read x; do echo ${#x} digits; done`)
	for _, line := range strings.Split(strings.TrimSpace(expectParts(t, exitOK, []string{"dump", dir, "--json"})), "\n") {
		var e dumpedEntry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Index == 0 {
			t.Errorf("%v: %s", err, line)
		}
	}
	expectParts(t, exitFailed, []string{"dump", dir, "--decode", "exit 3"}, "without an answer")
}

// TestDumpDamaged: what can be read is printed, and what cannot is named.
func TestDumpDamaged(t *testing.T) {
	dir := closedLog(t, nil)
	flipByte(t, dir, entryfile.Name(1), recordOf(t, dir, 6)+40)
	expectParts(t, exitFailed, []string{"dump", dir}, "5\t1\tnormal", "entry 6 cannot be read", "7\t1\tnormal", "20\t3\tnormal", "cannot be read: 1")
	must(t, os.Truncate(filepath.Join(dir, "wal.meta"), 100))
	expectParts(t, exitFailed, []string{"dump", dir}, "wal.meta", "1\t1\tnormal", "entry 6 cannot be read", "20\t3\tnormal")
	must(t, os.Remove(filepath.Join(dir, entryfile.Name(1))))
	expectParts(t, exitFailed, []string{"dump", dir}, "12\t3\tnormal", "20\t3\tnormal")
}

// recordOf returns where the record of an entry stands.
func recordOf(t *testing.T, dir string, i uint64) int64 {
	t.Helper()
	_, out, errs := execute("dump", dir, "--json", "--from", fmt.Sprint(i), "--to", fmt.Sprint(i))
	var e dumpedEntry
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatalf("%v: %s%s", err, out, errs)
	}
	return e.Offset
}

// verified runs verify and returns its report.
func verified(t *testing.T, code int, args ...string) (r verifyReport) {
	t.Helper()
	got, out, errs := execute(append([]string{"verify", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil || got != code || r.OK != (code == exitOK) {
		t.Fatalf("verify %v: exit code %d, want %d, %v:\n%s%s", args, got, code, err, out, errs)
	}
	return r
}

func TestVerifyDamage(t *testing.T) {
	const record = entryfile.DataStart + 3*56 // of entry 4
	for name, test := range map[string]struct {
		damage func(t *testing.T, dir string)
		kind   string
		file   string
		offset int64
		first  uint64
	}{
		"payload":           {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", record+40) }, "record", "00001.wal", record, 4},
		"record header":     {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", record+20) }, "record", "00001.wal", record, 4},
		"compacted record":  {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", record-20) }, "record", "00001.wal", record - 56, 3},
		"superseded record": {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", record+4*56+40) }, "record", "00001.wal", record + 4*56, 0},
		"open file":         {func(t *testing.T, dir string) { flipByte(t, dir, "00002.wal", entryfile.DataStart+40) }, "record", "00002.wal", entryfile.DataStart, 12},
		"last record":       {func(t *testing.T, dir string) { flipByte(t, dir, "00002.wal", entryfile.DataStart+8*56+40) }, "record", "00002.wal", entryfile.DataStart + 8*56, 20},
		"slot":              {func(t *testing.T, dir string) { flipByte(t, dir, "00001.wal", 5*32+3) }, "slots", "00001.wal", 5 * 32, 6},
		"slot of open file": {func(t *testing.T, dir string) { flipByte(t, dir, "00002.wal", 32+3) }, "slots", "00002.wal", 32, 13},
		"both header pages": {func(t *testing.T, dir string) {
			edit(t, dir, "00001.wal", entryfile.HeaderPages[0], make([]byte, 8192)...)
		}, "header", "00001.wal", entryfile.HeaderPages[0], 0},
		"file missing":         {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "00001.wal"))) }, "missing", "00001.wal", 0, 0},
		"last file missing":    {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "00002.wal"))) }, "missing", "00002.wal", 0, 0},
		"wal.meta missing":     {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "wal.meta"))) }, "missing", "wal.meta", 0, 0},
		"wal.meta cut short":   {func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "wal.meta"), 5000)) }, "meta", "wal.meta", 5000, 0},
		"page 0 of wal.meta":   {func(t *testing.T, dir string) { edit(t, dir, "wal.meta", 521, 100) }, "meta", "wal.meta", 0, 0}, // as if Dgraph had raised the commit index
		"file cut short":       {func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "00001.wal"), record+10)) }, "cut-short", "00001.wal", record + 10, 1},
		"file emptied":         {func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "00001.wal"), 0)) }, "cut-short", "00001.wal", 0, 0},
		"file of another log":  {func(t *testing.T, dir string) { copyFile(t, closedLog(t, nil), "00001.wal", dir, "00001.wal") }, "foreign", "00001.wal", -1, 0},
		"file under two names": {func(t *testing.T, dir string) { copyFile(t, dir, "00001.wal", dir, "1.wal") }, "name", "1.wal", 0, 0},
		"file of another time": {func(t *testing.T, dir string) { copyFile(t, dir, "00002.wal", dir, "00003.wal") }, "foreign", "00003.wal", -1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := closedLog(t, nil)
			test.damage(t, dir)
			before := hashOf(t, dir)
			r := verified(t, exitFailed, dir)
			for _, p := range r.Problems {
				if p.Severity == "damage" && p.Kind == test.kind && p.File == test.file && (p.Offset == test.offset || test.offset < 0) && p.First == test.first && p.What != "" && p.Heal != "" {
					expectParts(t, exitFailed, []string{"verify", dir}, "damage: "+test.file, p.What, p.Heal, "DAMAGED")
					if hashOf(t, dir) != before {
						t.Error("looking changed the directory")
					}
					return
				}
			}
			t.Errorf("not reported: %+v", r.Problems)
		})
	}
}

func copyFile(t *testing.T, fromDir, from, toDir, to string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(fromDir, from))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(toDir, to), content, 0o600))
}

// TestVerifyReportsAll: several damages are all reported, and so are harmless things.
func TestVerifyReportsAll(t *testing.T) {
	dir := closedLog(t, nil)
	places := []int64{40, 2*56 + 41, 5*56 + 10, 9*56 + 40}
	for _, at := range places {
		flipByte(t, dir, "00001.wal", entryfile.DataStart+at)
	}
	flipByte(t, dir, "00002.wal", entryfile.DataStart+60)
	flipByte(t, dir, "00002.wal", 4)
	flipByte(t, dir, "wal.meta", 4096+60)
	for _, name := range []string{"00009.wal.tmp", "00001.wal.corrupt", "0000000000000001-0000000000000001.snap", "notes.txt"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	r := verified(t, exitFailed, dir)
	got := make(map[string]int)
	for _, p := range r.Problems {
		got[string(p.Severity)+" "+p.Kind+" "+p.File]++
	}
	for what, n := range map[string]int{
		"damage record 00001.wal": len(places), "damage record 00002.wal": 1, "damage slots 00002.wal": 1, "degraded meta wal.meta": 1,
		"note leftover 00009.wal.tmp": 1, "note set-aside 00001.wal.corrupt": 1, "note leftover 0000000000000001-0000000000000001.snap": 1, "note unknown notes.txt": 1,
	} {
		if got[what] != n {
			t.Errorf("%s: %d times, want %d: %v", what, got[what], n, got)
		}
	}
	expectParts(t, exitFailed, []string{"info", dir}, "DAMAGE", "set aside", "temporary", "leftover", "unknown")
}

// TestUncleanAndTorn: neither is damage, and it is said plainly.
func TestUncleanAndTorn(t *testing.T) {
	live := filepath.Join(t.TempDir(), "live")
	wal := smallLog(t, live, nil)
	dir := filepath.Join(t.TempDir(), "copy")
	copyDir(t, live, dir)
	must(t, wal.Close())
	expectParts(t, exitOK, []string{"verify", dir}, "not closed", "OK: no damage")
	edit(t, dir, "00002.wal", entryfile.DataStart+9*56, []byte("half a record that was never promised")...)
	r := verified(t, exitOK, dir)
	for _, p := range r.Problems {
		if p.Kind == "torn" && p.File == "00002.wal" && p.Offset == entryfile.DataStart+9*56 && p.Length == 37 {
			expectParts(t, exitOK, []string{"info", dir}, "not closed", "37 B")
			expectParts(t, exitOK, []string{"map", dir}, "~")
			return
		}
	}
	t.Errorf("the torn tail is not reported: %+v", r.Problems)
}

// TestLookingChangesNothing: not one byte, name or time.
func TestLookingChangesNothing(t *testing.T) {
	dir := closedLog(t, nil)
	before := hashOf(t, dir)
	for _, command := range []string{"info", "verify", "dump", "map"} {
		expectParts(t, exitOK, []string{command, dir})
	}
	if hashOf(t, dir) != before {
		t.Error("the directory has changed")
	}
}

func TestEncrypted(t *testing.T) {
	key, other := strings.Repeat("a", 32), strings.Repeat("b", 32)
	dir := closedLog(t, []byte(key))
	with, wrong := keyFile(t, key+"\n"), keyFile(t, other)
	for _, command := range []string{"info", "verify", "dump", "map"} {
		expectParts(t, exitOK, []string{command, dir, "--key-file", with})
		expectParts(t, exitNoLook, []string{command, dir, "--key-file", wrong}, "unwrapped")
	}
	expectParts(t, exitOK, []string{"dump", dir, "--key-file", with, "--from", "5", "--to", "5"}, "5\t1\tnormal\t\"entry 5 of term 1\"")
	expectParts(t, exitOK, []string{"info", dir}, "4 to 20 (17)", "sealed, encrypted")
	expectParts(t, exitOK, []string{"verify", dir}, "tags are not")
	expectParts(t, exitNoLook, []string{"dump", dir}, "no key was given")
	expectParts(t, exitNoLook, []string{"info", closedLog(t, nil), "--key-file", with}, "not encrypted")

	// A record whose checksum is made right again is found by its tag only.
	forge(t, dir, "00001.wal", recordAt(t, dir, with, 5))
	if r := verified(t, exitOK, dir); r.Damage != 0 {
		t.Errorf("%+v", r.Problems)
	}
	for _, p := range verified(t, exitFailed, dir, "--key-file", with).Problems {
		if p.Kind == "tampered" && p.First == 5 && p.File == "00001.wal" {
			return
		}
	}
	t.Error("the forged record is not reported")
}

func recordAt(t *testing.T, dir, key string, i uint64) int64 {
	t.Helper()
	_, out, _ := execute("dump", dir, "--key-file", key, "--json", "--from", fmt.Sprint(i), "--to", fmt.Sprint(i))
	var e dumpedEntry
	must(t, json.Unmarshal([]byte(out), &e))
	return e.Offset
}

// TestBesideLiveOwner: a log that is written to, compacted and cleared meanwhile is
// never called damaged.
func TestBesideLiveOwner(t *testing.T) {
	t.Run("plain", func(t *testing.T) { besideLiveOwner(t, nil) })
	key := strings.Repeat("a", 32)
	t.Run("encrypted", func(t *testing.T) { besideLiveOwner(t, []byte(key), "--key-file", keyFile(t, key)) })
}

func besideLiveOwner(t *testing.T, key []byte, flags ...string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "live")
	must(t, smallLog(t, dir, key).Close())
	opts := quiet()
	opts.Key, opts.FileDataSize, opts.RetainEntries = key, 1<<20, 40
	wal, err := mmapwal.Open(dir, opts)
	must(t, err)
	var stop atomic.Bool
	done := make(chan error)
	go func() { done <- write(wal, &stop) }()
	for range 12 {
		for _, args := range [][]string{{"info", dir}, {"verify", dir}, {"dump", dir, "--data", "len"}, {"map", dir}} {
			expectParts(t, exitOK, append(args, flags...))
		}
	}
	stop.Store(true)
	must(t, <-done)
	must(t, wal.Close())
	expectParts(t, exitOK, append([]string{"verify", dir}, flags...))
}

// TestSpareAndNext: files that hold nothing are shown as what they are.
func TestSpareAndNext(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "live")
	wal := smallLog(t, dir, nil)
	save(t, wal, 3, &raftpb.Entry{Index: new(uint64(21)), Term: new(uint64(3)), Data: bytes.Repeat([]byte("x"), 900<<10)})
	must(t, wal.CreateSnapshot(15, nil, nil))
	waitForInfo(t, dir, "00002.wal    open", "00003.wal    next, empty", "00001.spare  spare")
	expectParts(t, exitOK, []string{"verify", dir}, "OK: no damage")
	out := expectParts(t, exitOK, []string{"map", dir, "--width", "60"}, "] next\n", "] spare\n", "- stale")
	if !regexp.MustCompile(`00001\.spare  \[=-+\] spare`).MatchString(out) {
		t.Errorf("the spare file is not stale:\n%s", out)
	}
	var l inspect.Log
	must(t, json.Unmarshal([]byte(expectParts(t, exitOK, []string{"info", dir, "--json"})), &l))
	if n := len(l.Files); n != 2 || l.Files[1].Role != inspect.RoleNext || l.Files[1].Records != 0 {
		t.Errorf("%+v", l.Files)
	}
	for _, o := range l.Others {
		if o.Role == inspect.RoleSpare && (o.Size != l.Files[1].Size || o.Reserved == 0) {
			t.Errorf("%+v", o)
		}
	}
	must(t, wal.Close())
	flipByte(t, dir, "00001.spare", 4)
	expectParts(t, exitOK, []string{"verify", dir}, "OK: no damage\n")
}

// waitForInfo waits until info prints these parts, in what is done in the background.
func waitForInfo(t *testing.T, dir string, parts ...string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, out, errs := execute("info", dir)
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(out, part) }) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%q are not all in:\n%s%s", parts, out, errs)
		}
	}
}

// TestFileText: each state of a file has a name.
func TestFileText(t *testing.T) {
	for want, f := range map[string]inspect.File{
		"open":                 {Role: inspect.RoleLive},
		"full, not sealed yet": {Role: inspect.RoleLive, Ended: true},
		"sealed, encrypted":    {Role: inspect.RoleLive, Ended: true, Sealed: true, Encrypted: true},
		"next, empty":          {Role: inspect.RoleNext},
		"torn":                 {Role: inspect.RoleTorn},
		"dead":                 {Role: inspect.RoleDead, Encrypted: true},
		"sealed, damaged":      {Role: inspect.RoleLive, Sealed: true, IndexDamaged: true},
	} {
		if got := fileText(&f); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// write saves entries, creates snapshots and clears data until it is told to stop.
func write(wal *mmapwal.DiskStorage, stop *atomic.Bool) error {
	data := bytes.Repeat([]byte("x"), 20_000)
	for i := uint64(21); !stop.Load(); i++ {
		e := &raftpb.Entry{Index: new(i), Term: new(uint64(3)), Data: data}
		err := wal.Save(nil, []*raftpb.Entry{e}, nil)
		if i%50 == 0 {
			err = errors.Join(err, wal.CreateSnapshot(i-30, nil, []byte("state")), wal.TruncateEntriesUntil(i-60))
		}
		if err != nil && !errors.Is(err, mmapwal.ErrInvalid) {
			return err
		}
	}
	return nil
}

// following starts dump --follow, and returns what it prints, and what interrupts it, which has
// to end it well.
func following(t *testing.T, dir, from string) (ctx context.Context, out, errs *safeBuffer, end func()) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(stop)
	out, errs = new(safeBuffer), new(safeBuffer)
	cmd := command(t, "dump", dir, "--follow", "--from", from)
	cmd.Stdout, cmd.Stderr = out, errs
	must(t, cmd.Start())
	return ctx, out, errs, func() {
		t.Helper()
		must(t, cmd.Process.Signal(syscall.SIGINT))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, errs.String())
		}
	}
}

// TestFollow: new entries are printed as they arrive, replaced ones again, and an
// interrupt ends it well.
func TestFollow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "live")
	wal := smallLog(t, dir, nil)
	ctx, out, errs, end := following(t, dir, "19")
	waitFor(ctx, t, out, "20\t3\tnormal")
	save(t, wal, 3, entriesOf(21, 22, 3)...)
	waitFor(ctx, t, out, "22\t3\tnormal")
	save(t, wal, 4, entriesOf(22, 23, 4)...)
	waitFor(ctx, t, out, "23\t4\tnormal")
	time.Sleep(3 * followEvery) // it has seen all, and wal.meta does not change with what follows
	must(t, wal.Save(nil, entriesOf(24, 24, 4), nil))
	waitFor(ctx, t, out, "24\t4\tnormal")
	must(t, wal.Save(nil, entriesOf(25, 25, 4), nil))
	waitFor(ctx, t, out, "25\t4\tnormal")
	end()
	if !strings.Contains(out.String(), "22\t4\tnormal") || !strings.Contains(errs.String(), "from 22 on were replaced") || strings.Count(out.String(), "21\t3") != 1 {
		t.Errorf("printed:\n%s%s", out.String(), errs.String())
	}
	must(t, wal.Close())
}

// TestFollowHalf: a record that was half stored when it was looked at is printed when it is
// whole, and so is what comes behind it.
func TestFollowHalf(t *testing.T) {
	live, dir := filepath.Join(t.TempDir(), "live"), filepath.Join(t.TempDir(), "copy")
	wal, err := mmapwal.Open(live, quiet())
	must(t, err)
	save(t, wal, 1, entriesOf(1, 9, 1)...)
	copyDir(t, live, dir)
	must(t, wal.Save(nil, []*raftpb.Entry{{Index: new(uint64(10)), Term: new(uint64(1)), Data: make([]byte, 8192)}}, nil))
	must(t, wal.Save(nil, entriesOf(11, 12, 1), nil))
	content, err := os.ReadFile(filepath.Join(live, "00001.wal"))
	must(t, err)
	must(t, wal.Close())
	ctx, out, _, end := following(t, dir, "8")
	waitFor(ctx, t, out, "9\t1\tnormal")
	const at, half = entryfile.DataStart + 9*56, 32 // the header is there, and the payload is not yet
	edit(t, dir, "00001.wal", at+half, bytes.Repeat([]byte{1}, 8192)...)
	edit(t, dir, "00001.wal", at, content[at:at+half]...)
	time.Sleep(3 * followEvery)
	edit(t, dir, "00001.wal", at+half, content[at+half:at+16384]...)
	waitFor(ctx, t, out, "10\t1\tnormal")
	waitFor(ctx, t, out, "12\t1\tnormal")
	end()
}

func TestMap(t *testing.T) {
	dir := closedLog(t, nil)
	out := expectParts(t, exitOK, []string{"map", dir, "--width", "60"}, "00001.wal  [=#", "4-11", "12-20", "! damaged")
	if strings.Contains(out, "\x1b") {
		t.Errorf("colours in a pipe:\n%q", out)
	}
	for _, line := range strings.Split(out, "\n") {
		if strings.HasSuffix(line, "]") && len(line) > 60 {
			t.Errorf("longer than 60 columns: %s", line)
		}
	}
	flipByte(t, dir, "00002.wal", entryfile.DataStart+60)
	expectParts(t, exitFailed, []string{"map", dir}, "00002.wal  [=!")
	svg := filepath.Join(t.TempDir(), "map.svg")
	expectParts(t, exitFailed, []string{"map", dir, "--svg", svg})
	content, err := os.ReadFile(svg)
	must(t, err)
	d := xml.NewDecoder(bytes.NewReader(content))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
	}
	for _, part := range []string{"<svg", "damaged", "superseded", "00002.wal"} {
		if !strings.Contains(string(content), part) {
			t.Errorf("%q is missing in the SVG", part)
		}
	}
}

// TestPictureInColour: a cell of each kind has a colour of its own.
func TestPictureInColour(t *testing.T) {
	p := &picture{colour: true}
	seen := make(map[string]bool)
	for _, look := range kindLooks {
		cell := p.kindCell(look.kind)
		if !strings.HasPrefix(cell, "\x1b[") || seen[cell] {
			t.Errorf("%s: %q", look.kind, cell)
		}
		seen[cell] = true
	}
}

func TestLookingBadUsage(t *testing.T) {
	dir := closedLog(t, nil)
	for _, args := range [][]string{
		{"info"}, {"verify"}, {"dump"}, {"map"}, {"info", dir, dir}, {"info", dir, "--key-file", "/no/such/file"}, {"verify", dir, "--frob"},
		{"dump", dir, "--type", "odd"}, {"dump", dir, "--data", "odd"}, {"dump", dir, "--from", "5", "--to", "4"},
		{"dump", dir, "--data", "hex", "--decode", "cat"}, {"map", dir, "--width", "3"}, {"map", dir, "--svg", dir + "/wal.meta"}, {"info", dir, "--key-file", keyFile(t, "short")},
	} {
		expectParts(t, exitUsage, args, "--help")
	}
	for _, command := range []string{"info", "verify", "dump", "map"} {
		none := filepath.Join(t.TempDir(), "none")
		expectParts(t, exitNoLook, []string{command, none}, "no such file")
		expectParts(t, exitNoLook, []string{command, t.TempDir()}, "there is no log")
		if _, err := os.Stat(none); err == nil {
			t.Errorf("%s made a directory", command)
		}
		expectParts(t, exitOK, []string{command, "--help"}, "takes no lock", "3 if it could", "--key-file")
	}
}
