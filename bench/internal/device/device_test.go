package device

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := parse(" 591083 175610 30116282 283921 4797339 212123 387555688 631974 0 429720 1086471 892350 78 910240592 86870 1695592 83705\n")
	want := Counters{Writes: 4797339, Bytes: 387555688 * 512, Flushes: 1695592}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, text := range []string{"", "1 2 3 4 5 6 7 8 9 10 11", "1 2 3 4 x 6 7 8 9 10 11 12 13 14 15 16 17"} {
		if got, err := parse(text); err == nil {
			t.Errorf("parse(%q) = %+v without an error", text, got)
		}
	}
}

func TestSubAdd(t *testing.T) {
	before, after := Counters{1, 512, 3}, Counters{5, 2048, 4}
	done := after.Sub(before)
	if (done != Counters{4, 1536, 1}) || done.Add(before) != after {
		t.Errorf("done: %+v", done)
	}
}

func TestWholeDisk(t *testing.T) {
	disk := t.TempDir()
	part := filepath.Join(disk, "vda1")
	if err := os.Mkdir(part, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := wholeDisk(part); got != part {
		t.Errorf("what is no partition became %s", got)
	}
	if err := os.WriteFile(filepath.Join(part, "partition"), []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := wholeDisk(part); got != disk {
		t.Errorf("the disk of %s is %s", part, got)
	}
}

// TestFlushes is the reason for the counters: a sync is seen as a flush.
func TestFlushes(t *testing.T) {
	dir := t.TempDir()
	d, err := Of(dir)
	if errors.Is(err, ErrNoCounters) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	after, err := d.Read()
	if err != nil {
		t.Fatal(err)
	}
	if done := after.Sub(before); done.Writes == 0 || done.Bytes < 4096 || done.Flushes == 0 {
		t.Errorf("a synced write of 4096 bytes counted as %+v on %s", done, d.Name)
	}
}

func TestNoDevice(t *testing.T) {
	if _, err := Of("/proc"); !errors.Is(err, ErrNoCounters) {
		t.Errorf("/proc: %v", err)
	}
	if _, err := Of(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a missing directory has a device")
	}
}
