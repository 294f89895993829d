package realdisk

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// waiting says what a waiter saves.
type waiting struct {
	Dir    string
	Policy string // "HardSync", "BatchSync" or "NoSync"
	Commit bool   // the commit index alone
}

// waiter is the process that saves to a frozen file system. It tells when it has begun a log, and,
// once it was told to go on, when a Save waits and all else goes on, and when that Save was done.
func waiter(config string) {
	var w waiting
	fatal(json.Unmarshal([]byte(config), &w))
	o := options(0)
	switch w.Policy {
	case "BatchSync":
		o.Sync = mmapwal.BatchSync(1000, time.Millisecond)
	case "NoSync":
		o.Sync = mmapwal.NoSync
	}
	d, err := mmapwal.Open(w.Dir, o)
	fatal(err)
	for i := range uint64(20) {
		fatal(d.Save(w.next(i + 1)))
	}
	fmt.Println("begun")
	_, err = os.Stdin.Read(make([]byte, 1)) // the parent goes on
	fatal(err)
	saved := make(chan error, 1)
	go func() { saved <- d.Save(w.next(21)) }()
	w.goOn(d, saved)
	fmt.Println("goes on")
	fatal(<-saved)
	fmt.Println("saved")
	fatal(d.Close())
}

// next returns what Save number i is of.
func (w *waiting) next(i uint64) (*raftpb.HardState, []*raftpb.Entry, *raftpb.Snapshot) {
	h := &raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(i - 1)}
	if w.Commit && i > 20 {
		return h, nil, nil
	}
	return h, []*raftpb.Entry{{Index: new(i), Term: new(uint64(1)), Data: make([]byte, 1000)}}, nil
}

// goOn returns when a write was seen to wait, the Save's or under BatchSync one of the background,
// and garbage was collected and entries were read meanwhile. A store that waited in a page fault
// would stop this goroutine, too.
func (w *waiting) goOn(d *mmapwal.DiskStorage, saved <-chan error) {
	stacks := make([]byte, 1<<20)
	for !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "Pwrite") {
		time.Sleep(time.Millisecond)
	}
	for range 5 {
		runtime.GC()
		_, err := d.Entries(1, 21, math.MaxUint64)
		fatal(err)
		_, _, err = d.InitialState()
		fatal(err)
		d.Stats()
	}
	if w.Policy == "BatchSync" {
		return
	}
	select {
	case err := <-saved:
		fatal(fmt.Errorf("the Save was done on a frozen file system: %v", err))
	default:
	}
}

// TestFrozenFileSystem: while a file system takes nothing, as when a snapshot of its volume is
// made, what is saved waits, and nothing else of the process does: not its garbage collector, nor
// reads of the log.
func TestFrozenFileSystem(t *testing.T) {
	each(t, func(t *testing.T, fs string) {
		image := filepath.Join(memory(t, 2<<30), "image")
		makeImage(t, fs, image, imageSizes[fs])
		mnt := mounted(t, fs, image)
		dir, err := os.Open(mnt)
		must(t, err)
		thaw := func() { _ = unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0) }
		endThawer := startThawer(t, mnt)
		t.Cleanup(func() { thaw(); endThawer(); _ = dir.Close() }) // before it is unmounted
		for _, policy := range []string{"HardSync", "BatchSync", "NoSync"} {
			for _, commit := range []bool{false, true} {
				w := waiting{filepath.Join(mnt, fmt.Sprint(policy, commit)), policy, commit}
				t.Run(fmt.Sprintf("%s, commit index alone %t", policy, commit), func(t *testing.T) {
					testFrozen(t, w, func() { must(t, unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0)) }, thaw)
				})
			}
		}
	})
}

func testFrozen(t *testing.T, w waiting, freeze, thaw func()) {
	config, err := json.Marshal(w)
	must(t, err)
	cmd := exec.Command("/proc/self/exe", string(config))
	cmd.Env = append(os.Environ(), roleEnv+"=waiter")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	ended := false
	defer func() {
		thaw()
		if !ended {
			_ = cmd.Process.Kill()
		}
		if err := cmd.Wait(); err != nil && ended {
			t.Error(err)
		}
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case line, ok := <-lines:
			if line != want || !ok {
				t.Fatalf("%q instead of %q", line, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("the process stands still; no %q", want)
		}
	}
	expect("begun")
	freeze()
	_, err = in.Write([]byte{1})
	must(t, err)
	expect("goes on")
	thaw()
	expect("saved")
	for range lines { // it has closed the log
	}
	ended = true
}
