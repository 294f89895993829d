package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

const backupKey = "0123456789abcdef"

// backupLog makes a log of 20 entries, which stays open.
func backupLog(t *testing.T, key []byte) (dir string, wal *mmapwal.DiskStorage) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "log")
	wal, err := mmapwal.Open(dir, &mmapwal.Options{Key: key})
	must(t, err)
	t.Cleanup(func() { _ = wal.Close() })
	must(t, wal.SetUint(mmapwal.RaftId, 5))
	backupSave(t, wal, 1, 20)
	return dir, wal
}

func backupSave(t *testing.T, wal *mmapwal.DiskStorage, from, to uint64) {
	t.Helper()
	var es []*raftpb.Entry
	for i := from; i <= to; i++ {
		es = append(es, &raftpb.Entry{Index: &i, Term: new(uint64(1)), Data: oracle.Data(i, 1, 100)})
	}
	must(t, wal.Save(&raftpb.HardState{Term: new(uint64(1)), Commit: &to}, es, nil))
}

// TestBackupAndRestore: a chain is made beside the owner of the log, over a backup
// and over a manifest, and restored.
func TestBackupAndRestore(t *testing.T) {
	for name, key := range map[string]string{"plain": "", "encrypted": backupKey} {
		t.Run(name, func(t *testing.T) {
			var masterKey []byte
			var with []string
			if key != "" {
				masterKey, with = []byte(key), []string{"--key-file", keyFile(t, key)}
			}
			dir, wal := backupLog(t, masterKey)
			place := t.TempDir()
			in := func(name string) string { return filepath.Join(place, name) }
			call := func(args ...string) string { return succeed(t, append(args, with...)...) }
			if out := call("backup", dir, in("full")); !strings.Contains(out, "a full backup") || !strings.Contains(out, "entries 1-20") {
				t.Errorf("printed %s", out)
			}
			backupSave(t, wal, 15, 30)
			manifest := call("backup", dir, in("second"), "--since", in("full"), "--json")
			must(t, os.WriteFile(in("manifest"), []byte(manifest), 0o600))
			must(t, wal.CreateSnapshot(25, &raftpb.ConfState{Voters: []uint64{5}}, oracle.Data(25, 1, 9000)))
			backupSave(t, wal, 31, 40)
			if out := call("backup", dir, in("third"), "--since", in("manifest")); !strings.Contains(out, "an increment") || !strings.Contains(out, "snapshot at 25") {
				t.Errorf("printed %s", out)
			}
			want, err := oracle.Describe(wal)
			must(t, err)
			if out := call("restore", in("full"), in("second"), in("third"), in("log")); !strings.Contains(out, "Raft ID 5, entries 26-40") {
				t.Errorf("printed %s", out)
			}
			again, err := openSource(in("log"), masterKey)
			must(t, err)
			defer again.Close()
			if got, err := oracle.Describe(again); got != want || err != nil {
				t.Errorf("restored %s, %v; want %s", got, err, want)
			}
			var m mmapwal.Manifest
			must(t, json.Unmarshal([]byte(call("restore", in("full"), in("second"), in("other"), "--raft-id", "6", "--json")), &m))
			if m.Last != 30 || m.RaftID != 5 {
				t.Errorf("manifest %+v", m)
			}
			other, err := openSource(in("other"), masterKey)
			must(t, err)
			defer other.Close()
			if id := other.Uint(mmapwal.RaftId); id != 6 {
				t.Errorf("Raft ID %d", id)
			}
			onlyThere(t, place, "full", "log", "manifest", "other", "second", "third")
		})
	}
}

// TestBackupCommandsFail: with the right exit code, and without leaving anything.
func TestBackupCommandsFail(t *testing.T) {
	dir, wal := backupLog(t, []byte(backupKey))
	with, place := keyFile(t, backupKey), t.TempDir()
	in := func(name string) string { return filepath.Join(place, name) }
	succeed(t, "backup", dir, in("full"), "--key-file", with)
	succeed(t, "backup", dir, in("next"), "--key-file", with, "--since", in("full"))
	b, err := os.ReadFile(in("full"))
	must(t, err)
	b[len(b)/2] ^= 1
	must(t, os.WriteFile(in("damaged"), b, 0o600))
	must(t, os.WriteFile(in("cut"), b[:1000], 0o600))
	must(t, os.WriteFile(in("wrong"), []byte("fedcba9876543210"), 0o600))
	plain, _ := backupLog(t, nil)
	for name, test := range map[string]struct {
		code int
		want string
		args []string
	}{
		"no directory":        {exitNoLook, "no such file", []string{"backup", in("missing"), in("new")}},
		"no arguments":        {exitUsage, "accepts 2 arg", []string{"backup"}},
		"output is there":     {exitUsage, "file already exists", []string{"backup", dir, in("full")}},
		"no place for output": {exitFailed, "no such file", []string{"backup", plain, in("missing/new")}},
		"no key":              {exitNoLook, "--key-file", []string{"backup", dir, in("new")}},
		"wrong key":           {exitNoLook, "cannot be unwrapped", []string{"backup", dir, in("new"), "--key-file", in("wrong")}},
		"key for a plain log": {exitNoLook, "leave out --key-file", []string{"backup", plain, in("new"), "--key-file", with}},
		"no parent":           {exitUsage, "no such file", []string{"backup", dir, in("new"), "--key-file", with, "--since", in("missing")}},
		"damaged parent":      {exitFailed, "damaged", []string{"backup", dir, in("new"), "--key-file", with, "--since", in("damaged")}},
		"parent of another":   {exitFailed, "parent", []string{"backup", plain, in("new"), "--since", in("full")}},
		"nothing to restore":  {exitUsage, "requires at least 2", []string{"restore", in("new")}},
		"no backup":           {exitUsage, "no such file", []string{"restore", in("missing"), in("new")}},
		"target is there":     {exitUsage, "not an empty directory", []string{"restore", in("full"), place}},
		"damaged":             {exitFailed, "damaged", []string{"restore", in("damaged"), in("new"), "--key-file", with}},
		"cut short":           {exitFailed, "cut short", []string{"restore", in("cut"), in("new"), "--key-file", with}},
		"increment alone":     {exitFailed, "increment", []string{"restore", in("next"), in("new"), "--key-file", with}},
		"restore without key": {exitNoLook, "--key-file", []string{"restore", in("full"), in("new")}},
		"bad ID":              {exitUsage, "invalid argument", []string{"restore", in("full"), in("new"), "--raft-id", "-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := execute(test.args...)
			if code != test.code || !strings.Contains(errs, test.want) || out != "" {
				t.Errorf("exit code %d, want %d; want %q in:\n%s%s", code, test.code, test.want, errs, out)
			}
		})
	}
	onlyThere(t, place, "cut", "damaged", "full", "next", "wrong")
	must(t, wal.Close())
}
