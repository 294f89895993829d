package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// keyFile writes a key file.
func keyFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// open opens the log in dir and closes it when the test ends.
func open(t *testing.T, dir string, key []byte) (*mmapwal.DiskStorage, error) {
	t.Helper()
	wal, err := mmapwal.Open(dir, &mmapwal.Options{Key: key, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Cleanup(func() { _ = wal.Close() })
	}
	return wal, err
}

func TestRekey(t *testing.T) {
	dir := t.TempDir()
	first, second := strings.Repeat("1", 32), strings.Repeat("2", 16)
	wal, err := open(t, dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	entry := &raftpb.Entry{Index: new(uint64(1)), Term: new(uint64(1)), Data: []byte("data")}
	if err := errors.Join(wal.Save(nil, []*raftpb.Entry{entry}, nil), wal.Close()); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name, old, new string
		code           int
		says           string
	}{
		{"a key for a plain log", first, second, exitNoLook, "not encrypted"},
		{"encrypt", "", first + "\n", exitOK, "1 older files"},
		{"no key", "", second, exitNoLook, "--key-file"},
		{"wrong key", second, first, exitNoLook, "unwrapped"},
		{"a new key", first, second, exitOK, "new key only"},
		{"short key", "short", first, exitUsage, "16, 24 or 32 bytes"},
		{"long key", second, first + first, exitUsage, "16, 24 or 32 bytes"},
	}
	for _, s := range steps {
		args := []string{"rekey", dir, "--new-key-file", keyFile(t, s.new)}
		if s.old != "" {
			args = append(args, "--key-file", keyFile(t, s.old))
		}
		code, out, errs := execute(args...)
		if code != s.code || !strings.Contains(out+errs, s.says) {
			t.Fatalf("%s: exit code %d, want %d; want %q in:\n%s%s", s.name, code, s.code, s.says, out, errs)
		}
	}
	if _, err := open(t, dir, []byte(first)); !errors.Is(err, mmapwal.ErrWrongKey) {
		t.Fatalf("the first key: %v", err)
	}
	wal, err = open(t, dir, []byte(second))
	if err != nil {
		t.Fatal(err)
	}
	es, err := wal.Entries(1, 2, 100)
	if err != nil || len(es) != 1 || !bytes.Equal(es[0].GetData(), []byte("data")) {
		t.Fatalf("entries %v, %v", es, err)
	}
}

func TestRekeyMakesNoLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	code, _, errs := execute("rekey", dir, "--new-key-file", keyFile(t, strings.Repeat("1", 32)))
	if code != exitNoLook || !strings.Contains(errs, "no such file") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made")
	}
	if code, _, _ := execute("rekey", dir); code != exitUsage {
		t.Errorf("exit code %d without a new key", code)
	}
}
