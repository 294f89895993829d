package realdisk

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// mediumData makes a log of several files of many entries.
func mediumData(i, term uint64) []byte { return oracle.Data(i, term, 7000) }

// cutShort says what a truncater does.
type cutShort struct {
	Dir  string
	File string // "tail", "sealed" or "wal.meta"
	Size int64  // that is left
}

// cutResult is what a truncater tells.
type cutResult struct {
	Saves  int      // that were acknowledged
	Failed string   // what the next one said, "" if none failed
	Reads  []string // errors of reads
	Wrong  []string // what must not be
}

// truncater is the process under which a file is cut short.
func truncater(config string) {
	var c cutShort
	fatal(json.Unmarshal([]byte(config), &c))
	d, err := mmapwal.Open(c.Dir, options(0))
	fatal(err)
	f := fillerOf(d, &oracle.Model{Data: mediumData})
	var out cutResult
	for ; out.Saves < 130; out.Saves++ {
		fatal(f.do(f.next()))
	}
	name, err := c.name()
	fatal(err)
	fatal(os.Truncate(name, c.Size))
	out.read(f, name)
	out.save(f)
	out.read(f, name)
	_ = d.Close() // an error is right, and so is none
	fatal(json.NewEncoder(os.Stdout).Encode(out))
}

// name returns the path of the file that is cut.
func (c *cutShort) name() (string, error) {
	names, err := filepath.Glob(c.Dir + "/*.wal")
	if err != nil || len(names) < 4 {
		return "", fmt.Errorf("entry files %v, %v", names, err)
	}
	slices.Sort(names)
	switch c.File {
	case "tail":
		return names[len(names)-1], nil
	case "sealed":
		return names[1], nil
	}
	return filepath.Join(c.Dir, c.File), nil
}

// read reads everything: it is right, or an error that names the file.
func (out *cutResult) read(f *filler, file string) {
	note := func(what string, err error) {
		if err == nil {
			return
		}
		text := fmt.Sprintf("%s: %v", what, err)
		_, isCorrupt := errors.AsType[*mmapwal.CorruptError](err)
		if !isCorrupt && !errors.Is(err, mmapwal.ErrFault) || !strings.Contains(text, file) {
			out.Wrong = append(out.Wrong, text)
		} else {
			out.Reads = append(out.Reads, text)
		}
	}
	for i := f.m.Base[0] + 1; i <= f.m.Last(); i++ {
		es, err := f.d.Entries(i, i+1, math.MaxUint64)
		note(fmt.Sprintf("entry %d", i), err)
		if err == nil && (len(es) != 1 || es[0].GetIndex() != i || string(es[0].GetData()) != string(f.m.Data(i, f.m.Term(i)))) {
			out.Wrong = append(out.Wrong, fmt.Sprintf("entry %d reads wrong", i))
		}
		_, err = f.d.Term(i)
		note(fmt.Sprintf("term %d", i), err)
	}
	_, err := f.d.Snapshot()
	note("snapshot", err)
	_, _, err = f.d.InitialState()
	note("initial state", err)
}

// save saves until that fails, or a file is filled.
func (out *cutResult) save(f *filler) {
	for range 60 {
		if err := f.do(f.next()); err != nil {
			out.Failed = err.Error()
			return
		}
		out.Saves++
	}
}

// TestCutShort cuts a file short under a running process. That must not kill
// the process, and what it reads, then and later, is right or an error.
func TestCutShort(t *testing.T) {
	const mib = 1 << 20
	sizes := map[string][]int64{
		"tail":     {0, 100, 9000, mib - 5000, mib + 20_000, mib + 100_001, 2*mib - 1},
		"sealed":   {0, 100, 9000, mib - 5000, mib + 20_000, 2*mib - 30_000},
		"wal.meta": {0, 100, 4096, 3*4096 + 1},
	}
	each(t, func(t *testing.T, fs string) {
		t.Parallel()
		image := filepath.Join(memory(t, 2<<30), "image")
		makeImage(t, fs, image, imageSizes[fs])
		mnt := mounted(t, fs, image)
		for _, file := range []string{"tail", "sealed", "wal.meta"} {
			for _, size := range sizes[file] {
				t.Run(fmt.Sprintf("%s to %d", file, size), func(t *testing.T) {
					testCutShort(t, cutShort{mnt + "/log", file, size})
				})
			}
		}
	})
}

func testCutShort(t *testing.T, c cutShort) {
	defer os.RemoveAll(c.Dir)
	config, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe", string(config))
	cmd.Env = append(os.Environ(), roleEnv+"=truncater")
	var log strings.Builder
	cmd.Stderr = &log
	answer, err := cmd.Output()
	if err != nil {
		t.Fatalf("the process: %v\n%s", err, log.String())
	}
	var out cutResult
	must(t, json.Unmarshal(answer, &out))
	for _, wrong := range out.Wrong {
		t.Error(wrong)
	}
	t.Logf("%d reads failed; Save: %s", len(out.Reads), out.Failed)
	checkCutShort(t, c.Dir, out)
}

// checkCutShort opens the log again: it is damaged, or all is there.
func checkCutShort(t *testing.T, dir string, out cutResult) {
	t.Helper()
	f := fillerOf(nil, &oracle.Model{Data: mediumData})
	for range out.Saves {
		f.acknowledge(f.next())
	}
	p := settled(f.m)
	if out.Failed != "" {
		p = p.started(step{"call", f.next()})
	}
	d, err := openLog(dir, 0)
	if err != nil {
		if _, ok := errors.AsType[*mmapwal.CorruptError](err); !ok {
			t.Errorf("opened again: %v", err)
		}
		return
	}
	_, err = p.check(d)
	if err = errors.Join(err, d.Close()); err != nil && !errors.Is(err, mmapwal.ErrCorrupt) {
		t.Errorf("opened again, after %d calls of Save, the next %q: %v", out.Saves, out.Failed, err)
	}
}
