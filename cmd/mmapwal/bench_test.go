package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/diskbench"
)

func TestBench(t *testing.T) {
	dir, svg := t.TempDir(), filepath.Join(t.TempDir(), "bench.svg")
	expectParts(t, exitOK, []string{"bench", dir, "--duration", "20ms", "--svg", svg},
		"p50", "p99.9", "p50 / reference", "reference 4 KiB", "log 64 x 4 KiB", "#", dir)
	content, err := os.ReadFile(svg)
	must(t, err)
	if !strings.HasPrefix(string(content), "<svg") {
		t.Errorf("no SVG: %.40s", content)
	}
	var r diskbench.Result
	must(t, json.Unmarshal([]byte(expectParts(t, exitOK, []string{"bench", dir, "--duration", "20ms", "--json"})), &r))
	if len(r.Series) != 4 || r.Series[0].P50 <= 0 || r.Verdict == "" {
		t.Errorf("%+v", r)
	}
	if left := contentOf(t, dir); len(left) > 0 {
		t.Errorf("left behind: %d files", len(left))
	}
}

// TestBenchInterrupted: nothing is left behind.
func TestBenchInterrupted(t *testing.T) {
	dir := t.TempDir()
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	cmd := command(t, "bench", dir, "--duration", "5m")
	var errs safeBuffer
	cmd.Stderr = &errs
	must(t, cmd.Start())
	for {
		entries, err := filepath.Glob(filepath.Join(dir, diskbench.Pattern+"*", "log", "00001.wal"))
		must(t, err)
		if len(entries) > 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("it does not begin: %s", errs.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(t, cmd.Process.Signal(syscall.SIGINT))
	if err := cmd.Wait(); err == nil || !strings.Contains(errs.String(), "interrupted; nothing is left behind") {
		t.Errorf("%v: %s", err, errs.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBenchBadUsage(t *testing.T) {
	dir := t.TempDir()
	for want, args := range map[string][]string{
		"accepts 1 arg":          {"bench"},
		"--duration":             {"bench", dir, "--duration", "1ns"},
		"directory of a log":     {"bench", closedLog(t, nil)},
		"no such directory":      {"bench", dir, "--svg", filepath.Join(dir, "none", "x.svg")},
		"invalid argument":       {"bench", dir, "--duration", "long"},
		"unknown flag: --frobs":  {"bench", dir, "--frobs"},
		"--duration 1h0m0s: fro": {"bench", dir, "--duration", "1h"},
	} {
		expectParts(t, exitUsage, args, want)
	}
	expectParts(t, exitNoLook, []string{"bench", filepath.Join(dir, "none"), "--duration", "20ms"}, "no such file")
}
