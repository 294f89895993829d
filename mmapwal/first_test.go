package mmapwal_test

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testLogFirst opens the log when it is told to, and tells what came of it.
func testLogFirst(dir string) {
	in := bufio.NewReader(os.Stdin)
	testLogTell("ready")
	_, _ = in.ReadString('\n')
	_, err := mmapwal.Open(dir, testLogOptions())
	switch {
	case err == nil:
		testLogTell("open")
	case errors.Is(err, mmapwal.ErrLocked):
		testLogTell("locked")
	default:
		testLogTell(err.Error())
	}
	_, _ = in.ReadString('\n') // it stays open until all have tried
}

// TestOneMakesTheLog: of many that open a log at once where there is none yet, one gets it, and
// the others ErrLocked, none a part of it. It is whole, whoever it was.
func TestOneMakesTheLog(t *testing.T) {
	const rounds, openers = 40, 12
	for round := range rounds {
		dir := filepath.Join(t.TempDir(), "a", "log")
		var edits []func(*mmapwal.Options)
		if round%2 == 1 {
			edits = append(edits, testLogEncrypted)
		}
		var opened sync.WaitGroup
		start := make(chan struct{})
		results := make(chan *mmapwal.DiskStorage, openers)
		for range openers {
			opened.Go(func() {
				<-start
				d, err := mmapwal.Open(dir, testLogOptions(edits...))
				if err != nil && !errors.Is(err, mmapwal.ErrLocked) {
					t.Errorf("round %d: %v", round, err)
				}
				if err == nil {
					results <- d
				}
			})
		}
		close(start)
		opened.Wait()
		close(results)
		n := 0
		for d := range results {
			n++
			testLogFill(t, d, 1)
			testLogClose(t, d)
		}
		if n != 1 {
			t.Fatalf("round %d: %d have the log", round, n)
		}
		d := testLogOpen(t, dir, edits...)
		testLogRange(t, d, 1, 1)
		testLogClose(t, d)
	}
}

// TestOneProcessMakesTheLog: the same for processes.
func TestOneProcessMakesTheLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	const openers = 6
	var told []*bufio.Reader
	var ends []io.Closer
	var starts []io.Writer
	for range openers {
		cmd := testLogCommand(t, "first", dir)
		in, err := cmd.StdinPipe()
		testNil(t, err)
		out, err := cmd.StdoutPipe()
		testNil(t, err)
		testNil(t, cmd.Start())
		defer func() { _ = cmd.Wait() }()
		told, starts, ends = append(told, bufio.NewReader(out)), append(starts, in), append(ends, in)
	}
	tells := func(k int) string {
		line, err := told[k].ReadString('\n')
		testNil(t, err)
		return strings.TrimSpace(line)
	}
	for k := range openers {
		if line := tells(k); line != "tell ready" {
			t.Fatal(line)
		}
	}
	for _, start := range starts {
		_, err := io.WriteString(start, "go\n")
		testNil(t, err)
	}
	n := 0
	for k := range openers {
		switch line := tells(k); line {
		case "tell open":
			n++
		case "tell locked":
		default:
			t.Error(line)
		}
	}
	for _, end := range ends {
		_ = end.Close()
	}
	if n != 1 {
		t.Errorf("%d processes have the log", n)
	}
}

// TestMustExist: Open makes nothing, and says what may be wrong; a log that is there opens.
func TestMustExist(t *testing.T) {
	must := func(o *mmapwal.Options) { o.MustExist = true }
	root := t.TempDir()
	empty := filepath.Join(root, "empty")
	testNil(t, os.Mkdir(empty, 0o700))
	for _, dir := range []string{filepath.Join(root, "none"), filepath.Join(root, "none", "deeper"), empty} {
		before := testLogDirState(t, root)
		_, err := mmapwal.Open(dir, testLogOptions(must))
		testLogIs(t, err, fs.ErrNotExist)
		for _, says := range []string{dir, "may not be mounted", "MustExist"} {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%q does not say %q", err, says)
			}
		}
		testLogSame(t, "directory", testLogDirState(t, root), before)
	}
	var lines testLogLines
	d := testLogOpen(t, empty, testLogLogged(&lines))
	testLogFill(t, d, 1)
	testLogClose(t, d)
	if got := lines.String(); strings.Count(got, "made a new log") != 1 || !strings.Contains(got, "level=INFO") || !strings.Contains(got, empty) {
		t.Errorf("the log says %q", got)
	}
	d = testLogOpen(t, empty, must)
	testLogRange(t, d, 1, 1)
	testLogClose(t, d)
	testNil(t, os.Remove(filepath.Join(empty, "wal.meta")))
	for _, edit := range []func(*mmapwal.Options){must, testLogReadOnly, func(*mmapwal.Options) {}} {
		_, err := mmapwal.Open(empty, testLogOptions(edit))
		testLogIs(t, err, mmapwal.ErrCorrupt)
		if says := err.Error(); strings.Contains(says, "move the entry files away") || !strings.Contains(says, "vote twice") {
			t.Errorf("advice that makes a blank node: %s", says)
		}
	}
}
