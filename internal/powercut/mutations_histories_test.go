package powercut_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// historyMutations are those that the histories of package histories have to notice.
var historyMutations = []mutation{
	{"a file of which nothing counts keeps a stale end", []edit{
		{"internal/chain/chain.go", "\t\tc.drop(n - 1)\n", ""},
		{"mmapwal/load.go", "\t\t\ts.first, s.last, any = 1, 0, true\n", "\t\t\ts.last, any = first-1, true\n"},
	}},
	{"entries that were replaced are back at Open", []edit{{"internal/chain/chain.go",
		"\t\tr.Last = first - 1\n", "\t\tr.Last = min(r.Last, first)\n"}}},
	{"an overwrite keeps an entry too many", []edit{{"entryfile/index.go",
		"keep = int(i - x.first)", "keep = int(i-x.first) + 1"}}},
	{"a file is let go that still counts", []edit{{"cleanup/cleanup.go",
		"\t\tif f.Last > compacted {\n", "\t\tif f.Last > compacted+1 {\n"}}},
	{"a compaction notes the term of another entry", []edit{{"mmapwal/snapshot.go",
		"if term, err = d.term(v, at); err != nil {", "if term, err = d.term(v, at+1); err != nil {"}}},
	{"a snapshot keeps an entry too few", []edit{{"mmapwal/snapshot.go",
		"\t\tat := i - retain\n", "\t\tat := i - retain + 1\n"}}},
	{"the commit index is left beyond the log", []edit{{"mmapwal/open.go",
		"\t\tm.HardState.Commit = commit\n", ""}}},
	{"BatchSync's interval ends, and nothing is synced", []edit{{"mmapwal/syncer.go",
		"\tif open {\n\t\ts.timer.Start(policy.interval)\n\t}\n", "\t_ = open\n"}}},
	{"BatchSync's interval is not begun anew", []edit{{"mmapwal/syncer.go",
		"\tif open {\n\t\ts.timer.Start(policy.interval)\n\t}\n",
		"\tif open && s.entries < 8 {\n\t\ts.timer.Start(policy.interval)\n\t}\n"}}},
	{"BatchSync leaves more unsynced than it says", []edit{{"mmapwal/syncer.go",
		"\tlate = late || unsynced > uint64(policy.entries)\n", "\t_ = unsynced\n"},
		{"mmapwal/syncer.go", "\twake := !late && unsynced > uint64(policy.entries)/2\n", "\twake := false\n"}}},
	{"reads see the hard state of an earlier Save", []edit{{"mmapwal/read.go",
		"\th := v.hard\n", "\th := v.meta.HardState\n"}}},
	{"the cache keeps entries that were replaced", []edit{{"mmapwal/cache.go",
		"\tc.cut(es[0].GetIndex())\n", ""}, {"mmapwal/cache.go", "\t\tc.clear()\n\t}\n\tfor", "\t}\n\tfor"}}},
	{"without fallocate, zeros are written over what is there", []edit{{"internal/vfs/fill.go",
		"bytes.Equal(piece, zeros[:len(piece)])", "!bytes.Equal(piece, []byte{})"},
		{"internal/vfs/fill.go", "f.WriteAt(piece, off+at)", "f.WriteAt(zeros[:len(piece)], off+at)"}}},
	{"Save does not sync its entries", []edit{{"mmapwal/syncer.go",
		"\terr := d.syncShared()\n", "\tvar err error\n"}}},
	{"a snapshot does not sync the entries that it covers", []edit{{"mmapwal/compact.go",
		"\tif err := d.syncData()" + returnErr, ""}}},
}

// TestHistoryMutations is TestMutations for package histories.
func TestHistoryMutations(t *testing.T) {
	if !isSet("MUTATIONS") {
		t.Skip("builds and runs the histories once per mutation, which takes minutes: MUTATIONS=1 go test ./internal/powercut -run TestHistoryMutations -v -timeout 30m")
	}
	if out, err := histories(t, ""); err != nil {
		t.Fatalf("without a mutation: %v\n%s", err, out)
	}
	began, table := time.Now(), fmt.Sprintf("%-62s %s\n", "mutation", "caught by the history of which seed")
	for _, m := range historyMutations {
		if !strings.Contains(m.name, os.Getenv("ONLY")) {
			continue
		}
		out, err := histories(t, overlay(t, m.edits))
		caught := seedPattern.FindStringSubmatch(out)
		if err == nil || caught == nil {
			t.Errorf("%s: not caught\n%s", m.name, out)
			caught = []string{"", "NOT CAUGHT"}
		}
		table += fmt.Sprintf("%-62s %s\n", m.name, caught[1])
		if isSet("REASONS") {
			t.Logf("%s:\n%.3000s", m.name, out)
		}
	}
	t.Logf("%v\n%s", time.Since(began).Round(time.Second), table)
}

var seedPattern = regexp.MustCompile(`SEED=([0-9]+)`)

// histories runs the histories of a few hundred seeds in a process of its own.
func histories(t *testing.T, overlay string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	args := []string{"test", "-run", "^TestRandom$", "-count=1", "-vet=off", "-timeout=4m"}
	if overlay != "" {
		args = append(args, "-overlay="+overlay)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "../histories")...)
	cmd.Env = append(os.Environ(), "SEED=1", "N=200", "SHRINK=0", "ALL=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
