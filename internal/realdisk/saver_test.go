package realdisk

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"golang.org/x/sys/unix"
)

// savings say what a saver is to do.
type savings struct {
	Dir    string
	Seed   uint64
	Steps  int
	Retain uint64
	Holds  content // what the log holds
}

// content is a model without functions, which can be sent to a process.
type content struct {
	Hard                [3]uint64
	Snap, Base          [2]uint64
	Terms               []uint64
	Checkpoint, Cleared uint64
}

func contentOf(m *oracle.Model) content {
	return content{m.Hard, m.Snap, m.Base, m.Terms, m.Checkpoint, m.Cleared}
}

// start returns what the log holds at first.
func (s savings) start() *oracle.Model {
	c := s.Holds
	return &oracle.Model{
		Hard: c.Hard, Snap: c.Snap, Base: c.Base, Terms: c.Terms, Checkpoint: c.Checkpoint, Cleared: c.Cleared,
		Retain: s.Retain, Data: entryData,
	}
}

func (s savings) history() []step { return history(s.Seed, s.Steps, s.start()) }

// saver is the process that saves. It tells of each step that it begins and of
// each that is done, and waits for an answer: the parent knows what the disk had
// been given at that moment.
func saver(config string) {
	var s savings
	fatal(json.Unmarshal([]byte(config), &s))
	answers := bufio.NewReader(os.Stdin)
	tell := func(line string) {
		fmt.Println(line)
		if _, err := answers.ReadByte(); err != nil {
			os.Exit(1) // the parent is gone
		}
	}
	go writeBack(s.Dir, s.Seed)
	d, m := (*mmapwal.DiskStorage)(nil), s.start()
	for _, next := range s.history() {
		tell("begun")
		var err error
		if d, err = next.do(d, m, s); err != nil {
			tell("failed " + strings.ReplaceAll(err.Error(), "\n", " "))
			os.Exit(1)
		}
		if next.kind == "call" {
			m = next.op.Done(m)
		}
		tell("done")
	}
}

// do takes a step with the log d, which holds m.
func (next step) do(d *mmapwal.DiskStorage, m *oracle.Model, s savings) (*mmapwal.DiskStorage, error) {
	switch next.kind {
	case "call":
		return d, next.op.Do(d, m)
	case "sync":
		return d, d.Sync()
	}
	if d != nil {
		if err := d.Close(); err != nil {
			return nil, err
		}
	}
	d, err := mmapwal.Open(s.Dir, options(s.Retain))
	if err != nil {
		return nil, err
	}
	_, err = settled(m).check(d)
	return d, err
}

// writeBack does what the kernel may do at any time: it writes some pages of
// some file, in no order, without a flush.
func writeBack(dir string, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 2))
	for {
		time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
		names, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(names) == 0 {
			continue
		}
		f, err := os.Open(names[r.IntN(len(names))])
		if err != nil {
			continue // removed meanwhile
		}
		if info, err := f.Stat(); err == nil && info.Size() > 0 {
			_ = unix.SyncFileRange(int(f.Fd()), r.Int64N(info.Size())&^4095, 4096<<r.IntN(9), unix.SYNC_FILE_RANGE_WRITE)
		}
		_ = f.Close()
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runSaver runs a saver to its end, and calls begun and done with each report
// before it is answered.
func runSaver(t *testing.T, s savings, begun, done func()) {
	t.Helper()
	config, err := json.Marshal(s)
	must(t, err)
	cmd := exec.Command("/proc/self/exe", string(config))
	cmd.Env = append(os.Environ(), roleEnv+"=saver")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch line := lines.Text(); line {
		case "begun":
			begun()
		case "done":
			done()
		default:
			t.Errorf("seed %d: the saver says %q", s.Seed, line)
		}
		if _, err := io.WriteString(in, "\n"); err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the saver: %v", err)
	}
}
