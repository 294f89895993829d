package powercut_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// edit replaces a string of a file of the engine, which has to occur once.
type edit struct{ file, from, to string }

// mutation is a promise that the engine is made to break.
type mutation struct {
	name  string
	edits []edit
}

const returnErr = "; err != nil {\n\t\treturn err\n\t}\n"

// mutations are those that the power-cut tests have to notice.
var mutations = []mutation{
	{"Save does not sync its entries", []edit{{"mmapwal/syncer.go",
		"\terr := d.syncShared()\n", "\tvar err error\n"}}},
	{"Save does not wait for the sync of its entries", []edit{{"mmapwal/save.go",
		"\t\terr = d.wait(c.ticket)\n", "\t\td.syncer.saves.Done()\n"}}},
	{"a commit index is stored before the entries are durable", []edit{{"mmapwal/save.go",
		"\treturn d.syncer.stage(len(p.entries), &d.hard), nil",
		"\tif err := d.noteMeta(d.hard); err != nil {\n\t\treturn 0, err\n\t}\n\treturn d.syncer.stage(len(p.entries), nil), nil"}}},
	{"reads see the hard state that is stored only", []edit{{"mmapwal/save.go",
		"\td.publishHard()\n", ""}}},
	{"a hard state counts though the records that it was stored behind are lost", []edit{{"metafile/believe.go",
		"i > 1 && !m.Behind.Reached(p[newest].FirstFile, found)", "false"}}},
	{"clearing commits a hard state whose records are not synced", []edit{{"mmapwal/truncate.go",
		"if d.syncer.pending() || d.opts.Sync.mode == noSync {", "if d.syncer.pending() {"}}},
	{"files that are full are not synced", []edit{{"mmapwal/ahead.go",
		"func (d *DiskStorage) syncRetired() (some bool, err error) {\n", "func (d *DiskStorage) syncRetired() (some bool, err error) {\n\tif true {\n\t\treturn true, nil\n\t}\n"}}},
	{"no record says that a full file ends", []edit{{"mmapwal/save.go",
		"\t\tif err := tail.Terminate(); err != nil {\n\t\t\treturn err\n\t\t}\n", ""}}},
	{"a snapshot does not sync the entries that it covers", []edit{{"mmapwal/compact.go",
		"\tif err := d.syncData()" + returnErr, ""}}},
	{"Seal does not sync the data", []edit{{"entryfile/seal.go",
		"\tif err := f.Sync()" + returnErr + "\tif err := f.SyncSlots()", "\tf.durable.Store(f.end.Load())\n\tif err := f.SyncSlots()"}}},
	{"Seal does not sync the slots", []edit{{"entryfile/seal.go",
		"err := f.sync(from, min(slotPiece, end-from)); err != nil", "err := error(nil); err != nil"}}},
	{"Seal stores the header before the data is synced", []edit{
		{"entryfile/seal.go", "\tif err := f.Sync()" + returnErr + "\tif err := f.SyncSlots()",
			"\tx := f.index\n\tif err := f.writeSeal(&x)" + returnErr + "\tif err := f.Sync()" + returnErr + "\tf.index = x\n\tif err := f.SyncSlots()"},
		{"entryfile/seal.go", "\treturn f.writeSeal(&f.index)\n", "\tf.index = Index{}\n\treturn nil\n"},
	}},
	{"Commit does not sync its first page", []edit{{"metafile/file.go",
		"f.write(first, true)", "f.write(first, false)"}}},
	{"Commit does not sync its second page", []edit{{"metafile/file.go",
		"f.write(second, true)", "f.write(second, false)"}}},
	{"Commit stores both pages before it syncs one", []edit{
		{"metafile/file.go", "\tif err := f.write(first, true)" + returnErr, "\tif err := f.write(first, false)" + returnErr},
		{"metafile/file.go", "\tif err := f.write(second, true)" + returnErr,
			"\tif err := f.write(second, false)" + returnErr + "\tif err := f.write(first, true)" + returnErr + "\tif err := f.write(second, true)" + returnErr},
	}},
	{"Commit begins with the page that counts", []edit{{"metafile/file.go",
		"if f.newest == 1 || slices", "if slices"}}},
	{"torn pages of wal.meta are not wiped", []edit{{"metafile/file.go",
		"\tif err := f.wipeDamaged()" + returnErr, ""}}},
	{"the checksum of a record is not checked", []edit{{"entryfile/record.go",
		" && r.sum == r.sumOf(mem, at, salt)", ""}}},
	{"the checksum of a page of wal.meta is not checked", []edit{{"metafile/format.go",
		" || !page.Sealed(p[:used], atChecksum)", ""}}},
	{"the checksum of an entry file's header page is not checked", []edit{{"entryfile/header.go",
		" || !page.Sealed(p[:page.Size], atHeaderSum)", ""}}},
	{"Open does not store the page of wal.meta again", []edit{{"mmapwal/open.go",
		"\t\tif err := d.meta.Restore(); err != nil {\n\t\t\treturn err\n\t\t}\n", ""}}},
	{"Open does not store the header page again", []edit{{"entryfile/seal.go",
		"func (f *File) RestoreHeader() error {\n", "func (f *File) RestoreHeader() error {\n\tif true {\n\t\tf.restored = true\n\t\treturn nil\n\t}\n"}}},
	{"Open does not store the records again", []edit{{"entryfile/scan.go",
		"\treturn f.withFile(func(file vfs.File) error { return f.restore(file, from, s.End) })\n", "\treturn nil\n"}}},
	{"Open does not sync the file that it ends", []edit{{"mmapwal/load.go",
		"\t\treturn l.file.Sync()\n", "\t\treturn nil\n"}}},
	{"Open goes on in a file that was torn", []edit{{"entryfile/scan.go",
		"\tif err := f.Terminate()" + returnErr + "\ts.Ended = true\n", ""}}},
	{"Open takes all records for synced", []edit{{"entryfile/scan.go",
		"\tf.durable.Store(from)\n", "\tf.durable.Store(s.End)\n"}}},
	{"Open does not sync the directory", []edit{{"mmapwal/open.go",
		"\t\tif err := d.fsys.SyncDir(d.dir); err != nil {\n\t\t\treturn err\n\t\t}\n\t\tif err := d.meta.Restore()", "\t\tif err := d.meta.Restore()"}}},
	{"Open takes every log that was closed cleanly for one that is on the disk", []edit{{"metafile/file.go",
		" && pages[1].sequence == pages[0].sequence\n", "\n"}}},
	{"entries are saved to a log that is marked clean", []edit{{"mmapwal/open.go",
		"\tif d.meta.Begun() {\n", "\tif true {\n"}}},
	{"a number that was stored counts as telling the disk that the log is in use", []edit{{"mmapwal/open.go",
		"\tif d.meta.Begun() {\n", "\tif d.meta.Stored() {\n"}}},
	{"the log in use stays marked clean", []edit{{"mmapwal/open.go",
		"m.Clean, m.Stamp, m.SyncPolicy = false,", "m.Clean, m.Stamp, m.SyncPolicy = m.Clean,"}}},
	{"Open takes dead files for live", []edit{{"mmapwal/inventory.go",
		"first, _ := slices.BinarySearch(inv.numbers, m.FirstFile)", "first := 0 * len(inv.numbers)"}}},
	{"files are removed before wal.meta says so", []edit{
		{"mmapwal/compact.go", "\tif err := d.meta.Commit(m)" + returnErr + "\td.syncer", "\td.syncer"},
		{"mmapwal/compact.go", "\td.remover.Remove(gone...)\n\treturn nil", "\td.remover.Remove(gone...)\n\terr := d.meta.Commit(m)\n\td.publish()\n\treturn err"},
	}},
	{"the snapshot file gets its name after wal.meta names it", []edit{{"mmapwal/snapshot.go",
		"\tif err := d.publishSnapshotFile(p)" + returnErr + "\treturn d.compact(p.meta)",
		"\tif err := d.compact(p.meta)" + returnErr + "\treturn d.publishSnapshotFile(p)"}}},
	{"the snapshot file is not synced", []edit{{"metafile/snapshot.go",
		"\treturn s.file.Sync()\n", "\treturn nil\n"}}},
	{"the snapshot file's name is not synced", []edit{{"mmapwal/snapshot.go",
		"\tif !p.snapNamed {\n", "\tif true {\n"}}},
	{"a new entry file's name is not synced", []edit{{"entryfile/file.go",
		"\treturn f.fsys.SyncDir(f.dir)", "\treturn nil"}}},
	{"a new entry file is not synced", []edit{{"entryfile/file.go",
		"\treturn f, f.file.Sync()\n", "\treturn f, nil\n"}}},
	{"a file that is used again is not synced before it gets its name", []edit{{"entryfile/ready.go",
		"\tif err := f.file.Sync(); err != nil {\n\t\treturn nil, err\n\t}\n", ""}}},
	{"a file that is used again is not cleared", []edit{{"entryfile/ready.go",
		"\treturn f.makeHeader() // zero", "\treturn f.storeHeader(f.file, nil) // zero"}}},
	{"a failed sync is tried again", []edit{{"entryfile/file.go",
		"\tif err := m.Sync(off, n)",
		"\terr = m.Sync(off, n)\n\tif err != nil {\n\t\terr = m.Sync(off, n)\n\t}\n\tif err := err"}}},
	{"zeros are written where a Save was given room", []edit{{"entryfile/append.go",
		"\tf.taken.Store(max(f.taken.Load(), to))\n", ""}}},
	{"what went around the page cache is not synced", []edit{{"entryfile/write.go",
		"\t\tf.unfinished = rest[last-from:]\n", "\t\tf.unfinished = rest[last-from:]\n\t\tf.durable.Store(end)\n"}}},
	{"a write around the page cache erases its first page", []edit{{"entryfile/write.go",
		"\tf.out = append(f.out, head...)\n", "\tf.out = append(f.out, make([]byte, len(head))...)\n"}}},
	{"a write behind one around the page cache erases its first page", []edit{{"entryfile/write.go",
		"\tf.out = append(f.out, head...)\n",
		"\tif direct {\n\t\tf.out = append(f.out, head...)\n\t} else {\n\t\tf.out = append(f.out, make([]byte, len(head))...)\n\t}\n"}}},
	{"a failed sync of wal.meta is tried again", []edit{{"metafile/file.go",
		"\treturn f.mem.Sync(at, page.Size)",
		"\tif f.mem.Sync(at, page.Size) == nil {\n\t\treturn nil\n\t}\n\treturn f.mem.Sync(at, page.Size)"}}},
	{"writes go on after a failed sync", []edit{
		{"mmapwal/storage.go", "\tif err == nil {\n\t\treturn nil\n\t}\n\tvar sticky error", "\tif true {\n\t\treturn err\n\t}\n\tvar sticky error"},
		{"entryfile/file.go", "\t\tf.broken.Store(&err)\n", ""},
		{"mmapwal/syncer.go", "\t\t_ = d.await(ticket) // an error is sticky, and told by deliver\n", // else it is tried for ever
			"\t\tif d.await(ticket) != nil {\n\t\t\td.syncer.finishAll()\n\t\t}\n"},
	}},
	{"the number of a removed file is used again", []edit{{"mmapwal/load.go",
		"max(d.next, m.FirstFile, m.Durable.File+1, m.ClearedEnd.File+1, inv.lastSpare()+1)", "max(d.next, 1)"}}},
	{"empty files are not removed durably", []edit{{"mmapwal/open.go",
		"\treturn d.fsys.SyncDir(d.dir)\n", "\treturn nil\n"}}},
	{"a torn file is sealed before those behind it are removed", []edit{
		{"mmapwal/load.go", "\t\tif err := d.removeDurably(entryfile.Name(l.file.Number())); err != nil {\n\t\t\treturn err\n\t\t}\n", ""},
		{"mmapwal/load.go", "\td.adoptLoaded(kept)\n\treturn nil\n", "\tfor _, l := range slices.Backward(files[n:]) {\n" +
			"\t\tif err := d.removeDurably(entryfile.Name(l.file.Number())); err != nil {\n\t\t\treturn err\n\t\t}\n\t}\n\td.adoptLoaded(kept)\n\treturn nil\n"},
	}},
	{"entries behind a torn file count", []edit{{"mmapwal/load.go",
		"\t\tif l.open() {\n\t\t\tbreak\n\t\t}\n", ""}}},
	{"Open stores the header page of the last file alone again", []edit{{"mmapwal/load.go",
		"case k == len(kept)-1 || kept[k+1].scan != nil:", "case k == len(kept)-1:"}}},
	{"without fallocate, zeros are written over what is there", []edit{{"internal/vfs/fill.go",
		"bytes.Equal(piece, zeros[:len(piece)])", "!bytes.Equal(piece, []byte{})"},
		{"internal/vfs/fill.go", "f.WriteAt(piece, off+at)", "f.WriteAt(zeros[:len(piece)], off+at)"}}},
	{"a snapshot that is installed keeps what is behind it", []edit{{"mmapwal/check.go",
		"\tif p.Index != v.last {\n", "\tif p.Index < v.meta.Compacted.Index || p.Index > v.last {\n"}}},
	{"a gap is seen in front of a file of which nothing counts", []edit{
		{"internal/chain/chain.go", "\t\tc.drop(n - 1)\n", ""},
		{"mmapwal/load.go", "\t\t\ts.first, s.last, any = 1, 0, true\n", "\t\t\ts.last, any = first-1, true\n"},
	}},
	{"Close does not sync the entries", []edit{{"mmapwal/close.go",
		"\tif err := d.syncData(); err != nil { // has nothing sealed in the background by now\n\t\treturn err\n\t}\n", ""}}},
}

// TestMutationsFit: what is to be replaced is there.
func TestMutationsFit(t *testing.T) {
	for _, m := range slices.Concat(mutations, historyMutations) {
		t.Run(m.name, func(t *testing.T) { overlay(t, m.edits) })
	}
}

// TestMutations shows that the power-cut tests can fail: it runs them on the
// engine with one mutation after another, and on the engine as it is. ONLY picks
// mutations by a part of their names.
func TestMutations(t *testing.T) {
	if !isSet("MUTATIONS") {
		t.Skip("builds and runs the power-cut tests once per mutation, which takes minutes: MUTATIONS=1 go test ./internal/powercut -run TestMutations -v -timeout 30m")
	}
	if out, err := mutated(t, ""); err != nil {
		t.Fatalf("without a mutation: %v\n%s", err, out)
	}
	table := fmt.Sprintf("%-62s %s\n", "mutation", "caught by, after how many images")
	for _, m := range mutations {
		if !strings.Contains(m.name, os.Getenv("ONLY")) {
			continue
		}
		started := time.Now()
		out, err := mutated(t, overlay(t, m.edits))
		caught := caughtBy(out)
		if err == nil || len(caught) == 0 {
			t.Errorf("%s: not caught\n%s", m.name, out)
			caught = []string{"NOT CAUGHT"}
		}
		line := fmt.Sprintf("%-62s %s", m.name, strings.Join(caught, ", "))
		t.Logf("%s (%v)", line, time.Since(started).Round(time.Second))
		if isSet("REASONS") {
			t.Logf("%.3000s", out)
		}
		table += line + "\n"
	}
	t.Logf("\n%s", table)
}

var imagesPattern = regexp.MustCompile(`IMAGES=([0-9]+) `)

var historyKinds = strings.NewReplacer("longShort", "short", "longFound", "found")

// caughtBy lists the tests that failed, with the number of images.
func caughtBy(out string) (caught []string) {
	for _, part := range strings.Split(out, "--- FAIL: TestPowerCut")[1:] {
		name, rest, _ := strings.Cut(part, " ")
		if m := imagesPattern.FindStringSubmatch(rest); m != nil && strings.Contains(name, "/") {
			caught = append(caught, historyKinds.Replace("long"+name)+" "+m[1])
		}
	}
	return caught
}

// overlay writes an overlay with the edits in it.
func overlay(t *testing.T, edits []edit) (name string) {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sources := make(map[string]string)
	for _, e := range edits {
		path := filepath.Join(root, e.file)
		if sources[path] == "" {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			sources[path] = string(content)
		}
		if n := strings.Count(sources[path], e.from); n != 1 {
			t.Fatalf("%s has the string to replace %d times, not once; the mutation has to be made anew:\n%s", e.file, n, e.from)
		}
		sources[path] = strings.Replace(sources[path], e.from, e.to, 1)
	}
	return writeOverlay(t, sources)
}

func writeOverlay(t *testing.T, sources map[string]string) (name string) {
	t.Helper()
	dir := t.TempDir()
	replace := make(map[string]string)
	for path, source := range sources {
		replace[path] = filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(replace[path], []byte(source), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	name = filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// mutated runs the power-cut tests in a process of their own, with fixed seeds
// and a bounded number of images.
func mutated(t *testing.T, overlay string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args := []string{"test", "-run", "^TestPowerCut(Short|Plain|Found|Async)?$", "-failfast", "-count=1", "-vet=off", "-timeout=4m"}
	if overlay != "" {
		args = append(args, "-overlay="+overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "SEED=1", "N=5000", "SHRINK=0", "OPS=", "LENGTH=2", "PERCUT=32", "LONGER=10")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
