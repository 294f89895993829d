package damage

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// verdict is what a large damage does.
type verdict int

const (
	right   verdict = iota // the right data
	noted                  // but for an older commit index or checkpoint
	torn                   // but for entries that nothing vouches for
	atOpen                 // *CorruptError
	atRead                 // *CorruptError
	foreign                // ErrForeign or ErrVersion
	earlier                // the data of an earlier time: the format cannot tell
	mixed                  // a mixture of times: the format cannot tell
	verdicts
)

func (v verdict) String() string {
	return [...]string{"right", "older commit", "torn off", "found at open", "found at read", "foreign", "earlier time", "mixed times"}[v]
}

// large is the large damages of one variant.
type large struct {
	t     *testing.T
	v     variant
	disk  *Disk
	table map[string]*[verdicts]int
	told  map[string]int // the harms that the format cannot tell, by reason
	exact []string       // those of them that do not depend on the seed
	kept  map[string]int // what came of KeepValidPrefix
	count int
}

// TestLargeDamage damages sectors, pages, files and directories, and opens and
// reads the log: it is right, or an error names the file, or the format cannot
// tell. The last are those in testdata/untold.txt; UPDATE=1 writes them. By reason:
//
//	the whole directory is of an earlier time   it is a log like any other
//	all but one file are                        a file that was damaged then, or that is new
//	wal.meta is, and the log was not closed     term, vote, snapshot and ids are that time's
//	the last file is, behind what is vouched    as if the last Saves had been torn
//	NoSync: page 2 or 3, whichever is newer     the hard state of the Save before; told as healed
//	a file that is not sealed, before an empty  its last entries are missing; TestOlderFiles
//
// In the first three, what is read was saved, each part at some time.
func TestLargeDamage(t *testing.T) {
	seed := seedOf(t)
	other := Build(3, mmapwal.HardSync, 4000)
	other.Close()
	var all []*large
	for k, v := range variants(t) {
		h := harms{v: v, other: other.Now().Image, r: rand.New(rand.NewPCG(seed, uint64(k)))}
		all = append(all, runHarms(t, v, h.collect()))
	}
	if !light() {
		compareUntold(t, all)
	}
}

// TestOlderFiles brings files back from earlier at every moment of a log.
func TestOlderFiles(t *testing.T) {
	l := Build(1, mmapwal.HardSync, 4000)
	l.Open()
	l.Sync()
	l.Open()
	l.Save([3]uint64{6, 1, 33}, Entries(34, 35, 6)...)
	if l.Err() != nil {
		t.Fatal(l.Err())
	}
	sum := &large{t: t, table: make(map[string]*[verdicts]int), kept: make(map[string]int), told: make(map[string]int)}
	for k, m := range l.Moments {
		v := variant{name: fmt.Sprintf("%d, %s", k, m.Name), Moment: m, log: l}
		h := harms{v: v}
		h.older()
		t.Run(v.name, func(t *testing.T) {
			one := &large{t: t, v: v, disk: NewDisk(Dir), table: sum.table, kept: sum.kept}
			one.run(h.all)
			sum.count += one.count
			for why, n := range one.told {
				sum.told[why] += n
			}
		})
	}
	sum.report()
}

func runHarms(t *testing.T, v variant, harms []harm) *large {
	l := &large{t: t, v: v, disk: NewDisk(Dir), table: make(map[string]*[verdicts]int), kept: make(map[string]int)}
	t.Run(v.name, func(t *testing.T) {
		l.t = t
		l.run(harms)
		l.report()
	})
	l.t = t
	return l
}

func (l *large) run(harms []harm) {
	for n, h := range harms {
		if !light() || n%40 == 0 {
			l.do(h)
		}
	}
}

// cannotTell says why the format cannot tell a damage, "" if it can.
func (l *large) cannotTell(h harm) string {
	last := entryfile.Name(4) // of the logs of TestLargeDamage
	switch {
	case h.kind == "whole directory of earlier":
		return "the whole directory is of an earlier time"
	case h.kind == "all but one file of earlier":
		return "all but one file are of an earlier time"
	case h.kind == "file of earlier" && h.files[0] == metaName:
		return "wal.meta is of an earlier time"
	case h.kind == "file of earlier" && h.files[0] == last && l.v.vouched != 0:
		return "nothing vouches for what the last file has lost"
	case l.v.log.sync == mmapwal.NoSync && h.files[0] == metaName:
		return "under NoSync one page of wal.meta has the newest hard state"
	}
	return ""
}

func (l *large) do(h harm) {
	defer func() {
		if p := recover(); p != nil {
			l.t.Fatalf("%s, %s: panic: %v", h.kind, h.what, p)
		}
	}()
	l.disk.Load(h.img)
	l.disk.Forget()
	got, wrong := l.try(h)
	if wrong != "" {
		l.t.Errorf("%s, %s: %s", h.kind, h.what, wrong)
	}
	if l.table[h.kind] == nil {
		l.table[h.kind] = new([verdicts]int)
	}
	l.table[h.kind][got]++
	l.count++
	if got >= earlier {
		l.untold(h, got)
	}
	if got == atOpen || got == atRead {
		l.keepPrefix(h)
	}
}

// untold notes a damage that was not noticed, and could not be.
func (l *large) untold(h harm, got verdict) {
	why := l.cannotTell(h)
	if why == "" {
		l.t.Errorf("%s, %s: not noticed: %v", h.kind, h.what, got)
	}
	if l.told == nil {
		l.told = make(map[string]int)
	}
	l.told[why]++
	if !strings.HasPrefix(h.kind, "page of") {
		l.exact = append(l.exact, fmt.Sprintf("%s: %s, %s: %v", l.v.name, h.kind, h.what, got))
	}
}

func (l *large) try(h harm) (verdict, string) {
	d, err := Open(l.disk, 9, l.v.log.Options())
	if err != nil {
		if l.disk.Changes != 0 && h.img[metaName] != nil {
			return atOpen, fmt.Sprintf("Open failed, and changed something: %v", err)
		}
		if !errors.Is(err, mmapwal.ErrCorrupt) && (errors.Is(err, mmapwal.ErrForeign) || errors.Is(err, mmapwal.ErrVersion)) {
			return foreign, ""
		}
		return atOpen, wrongLargeError(h, err)
	}
	r, err := Read(d)
	if err != nil {
		return mixed, err.Error()
	}
	for _, err := range r.Errs {
		if wrong := wrongLargeError(h, err); wrong != "" {
			return atRead, wrong
		}
	}
	return l.judge(r, d.Stats())
}

func wrongLargeError(h harm, err error) string {
	var e *mmapwal.CorruptError
	if !errors.As(err, &e) {
		return fmt.Sprintf("error %q is no *CorruptError", err)
	}
	// A gap, or a file of another time, is told by the file behind it.
	files := slices.Clone(h.files)
	names := h.img.Names()
	for _, name := range h.files {
		if k, _ := slices.BinarySearch(names, name+"\x00"); k < len(names) {
			files = append(files, names[k])
		}
	}
	return wrongPlace(h.img, e, files, 0)
}

// judge compares what was read with the log as it was, and as it was earlier.
func (l *large) judge(r *Reading, stats mmapwal.Stats) (verdict, string) {
	want := l.v.State.Clone()
	if l.v.fellBackWithTail(r) {
		want.Hard = r.Hard
	}
	if wrong := r.Wrong(want); wrong == "" {
		switch {
		case len(r.Errs) > 0 && r.Last() == want.Last():
			return atRead, ""
		case r.Last() == want.Last() && r.Hard == want.Hard && r.Noted == want.Noted:
			return right, ""
		case r.Last() == want.Last() && l.v.fellBackTo(r.Hard, r.Noted):
			return noted, ""
		case l.v.vouched != 0 && r.Last() >= l.v.vouched && r.Last() < want.Last() && stats.Recovery.TornBytes > 0:
			return torn, ""
		}
	}
	for _, m := range l.v.log.Moments {
		if r.Wrong(m.State) == "" && r.Last() == m.State.Last() {
			return earlier, ""
		}
	}
	if wrong := l.v.log.NeverSaved(r); wrong != "" {
		return mixed, wrong
	}
	return mixed, ""
}

// report prints the table.
func (l *large) report() {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%-34s", "damage")
	for v := range verdicts {
		fmt.Fprintf(&out, "%14v", v)
	}
	for _, kind := range slices.Sorted(maps.Keys(l.table)) {
		fmt.Fprintf(&out, "\n%-34s", kind)
		for _, n := range l.table[kind] {
			fmt.Fprintf(&out, "%14s", strings.TrimPrefix(strconv.Itoa(n), "0"))
		}
	}
	l.t.Logf("%d damages\n%s\nThe format cannot tell: %v\nKeepValidPrefix: %v", l.count, &out, l.told, l.kept)
}

// compareUntold compares the damages that were not noticed with the known ones.
func compareUntold(t *testing.T, all []*large) {
	const name = "testdata/untold.txt"
	var lines []string
	for _, l := range all {
		lines = append(lines, l.exact...)
	}
	got := strings.Join(lines, "\n") + "\n"
	if os.Getenv("UPDATE") == "1" {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	known := strings.Split(string(want), "\n")
	for _, line := range lines {
		if !slices.Contains(known, line) {
			t.Errorf("not noticed, and new: %s", line)
		}
	}
	for _, line := range known {
		if line != "" && !slices.Contains(lines, line) {
			t.Errorf("noticed now: %s", line)
		}
	}
}
