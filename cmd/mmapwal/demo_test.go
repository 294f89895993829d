package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

func TestDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "demo")
	out, err := command(t, "demo", "--writes", "200", "--kills", "2", "--seed", "7", "--dir", dir, "--keep").CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, want := range []string{"seed 7", "kill 1:", "kill 2:", "200 (", "2 (", "OK: all 200", "the logs are in " + dir} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	for id := 1; id <= 3; id++ {
		checkClosed(t, filepath.Join(dir, fmt.Sprintf("node%d", id)), 200)
	}
}

// checkClosed fails unless there is a log that was closed, with at least so many entries.
func checkClosed(t *testing.T, dir string, entries int) {
	t.Helper()
	wal, err := mmapwal.Open(dir, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if !wal.Stats().Recovery.Clean || wal.NumEntries() < entries {
		t.Errorf("%s: clean %v, %d entries", dir, wal.Stats().Recovery.Clean, wal.NumEntries())
	}
	if err := wal.Close(); err != nil {
		t.Error(err)
	}
}

func quiet() *mmapwal.Options {
	return &mmapwal.Options{Logger: slog.New(slog.DiscardHandler)}
}

func TestDemoRemovesWhatItMadeOnly(t *testing.T) {
	dir := t.TempDir()
	mine := filepath.Join(dir, "mine")
	if err := os.WriteFile(mine, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Join(dir, "new", "er")} {
		if out, err := command(t, "demo", "--writes", "20", "--kills", "0", "--dir", d).CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) != 1 || left[0].Name() != "mine" {
			t.Errorf("left in the directory: %v", left)
		}
	}
}

func TestDemoInTemporaryDirectory(t *testing.T) {
	tmp := t.TempDir()
	cmd := command(t, "demo", "--writes", "20", "--kills", "1")
	cmd.Env = append(cmd.Env, "TMPDIR="+tmp)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), tmp) {
		t.Fatalf("%v:\n%s", err, out)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// startDemo starts a long demo and returns when its nodes are up.
func startDemo(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, stderr func() string) {
	t.Helper()
	cmd = command(t, append([]string{"demo", "--writes", "1000000", "--kills", "1000", "--dir", dir}, args...)...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it is gone already if the test passed
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "nodes are up") {
	}
	if lines.Err() != nil {
		t.Fatal(lines.Err())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return cmd, errs.String
}

// locked says how many nodes still hold their logs.
func locked(t *testing.T, dir string) int {
	t.Helper()
	n := 0
	for id := 1; id <= 3; id++ {
		wal, err := mmapwal.Open(filepath.Join(dir, fmt.Sprintf("node%d", id)), quiet())
		switch {
		case errors.Is(err, mmapwal.ErrLocked):
			n++
		case err != nil:
			t.Fatal(err)
		default:
			if err := wal.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return n
}

func TestInterruptLeavesNoProcess(t *testing.T) {
	// Under nohup, children would ignore SIGHUP, too.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "logs")
			cmd, stderr := startDemo(t, dir, "--keep")
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code says more
			if code := cmd.ProcessState.ExitCode(); code != exitFailed {
				t.Errorf("exit code %d, want %d:\n%s", code, exitFailed, stderr())
			}
			if !strings.Contains(stderr(), sig.String()) {
				t.Errorf("it did not say why it ended:\n%s", stderr())
			}
			// A process that were left would hold the lock of its log.
			if n := locked(t, dir); n > 0 {
				t.Errorf("%d nodes still run", n)
			}
		})
	}
}

func TestInterruptRemovesLogs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	cmd, stderr := startDemo(t, dir)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d, want %d:\n%s", code, exitFailed, stderr())
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the logs are still there: %v", err)
	}
}

func TestNodesDoNotOutliveTheDemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	cmd, _ := startDemo(t, dir)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for locked(t, dir) > 0 {
		if time.Now().After(deadline) {
			t.Fatal("nodes still run")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
