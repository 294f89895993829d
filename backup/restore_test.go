package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/vfstest"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// refused restores a chain that must be refused with want, and leave nothing.
func refused(t *testing.T, what string, opts *backup.RestoreOptions, want error, backups ...[]byte) {
	t.Helper()
	parent := t.TempDir()
	_, err := backup.Restore(t.Context(), filepath.Join(parent, "log"), unsyncedRestore(opts), readers(backups)...)
	if !errors.Is(err, want) || want == mmapwal.ErrWrongKey && errors.Is(err, mmapwal.ErrTampered) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
	nothingIn(t, parent)
}

// TestDamagedBackups: a backup that is damaged in any byte, or cut short, is refused.
// TestEveryByte of internal/archive has all bytes of a small one.
func TestDamagedBackups(t *testing.T) {
	d := open(t, t.TempDir())
	save(t, d, 1, 20, 1, 50)
	b, _ := full(t, d)
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		at := rng.IntN(len(b))
		bad := bytes.Clone(b)
		bad[at] ^= 1 << rng.IntN(8)
		refused(t, fmt.Sprintf("seed %d: flipped byte %d of %d", seed, at, len(b)), nil, backup.ErrDamaged, bad)
		at = rng.IntN(len(b))
		refused(t, fmt.Sprintf("seed %d: cut at %d of %d", seed, at, len(b)), nil, backup.ErrDamaged, b[:at])
	}
	for at := 1; at < 1100; at += 31 { // the end of a tar stream
		refused(t, fmt.Sprintf("without the last %d bytes", at), nil, backup.ErrDamaged, b[:len(b)-at])
	}
	refused(t, "empty", nil, backup.ErrDamaged, nil)
	refused(t, "more behind it", nil, backup.ErrDamaged, append(bytes.Clone(b), b...))
	same(t, "undamaged", restored(t, nil, b), content(t, d))
}

func TestChains(t *testing.T) {
	d := open(t, t.TempDir())
	save(t, d, 1, 20, 1, 50)
	first, m := full(t, d)
	other, _ := full(t, d)
	save(t, d, 15, 30, 2, 50)
	second, m2 := since(t, d, m)
	third, _ := since(t, d, m2)
	for name, chain := range map[string][][]byte{
		"increment alone":        {second},
		"increment of another":   {other, second},
		"gap":                    {first, third},
		"wrong order":            {first, third, second},
		"twice":                  {first, second, second},
		"two full ones":          {first, other},
		"full one at the end":    {first, second, first},
		"increments of one only": {second, third},
	} {
		refused(t, name, nil, backup.ErrChain, chain...)
	}
	refused(t, "nothing", nil, mmapwal.ErrInvalid)
	if _, err := backup.Restore(t.Context(), t.TempDir(), nil, nil); !errors.Is(err, mmapwal.ErrInvalid) {
		t.Errorf("a backup that is nil: %v", err)
	}
	refused(t, "damage in the middle", nil, backup.ErrDamaged, first, second[:3000], third)
	same(t, "chain of 3", restored(t, nil, first, second, third), content(t, d))
}

func TestTargets(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	parent := t.TempDir()
	taken, file, empty := filepath.Join(parent, "taken"), filepath.Join(parent, "file"), filepath.Join(parent, "empty")
	must(t, os.MkdirAll(filepath.Join(taken, "something"), 0o700))
	must(t, os.WriteFile(file, []byte("content"), 0o600))
	must(t, os.Mkdir(empty, 0o700))
	for _, dir := range []string{taken, file} {
		if _, err := backup.Restore(t.Context(), dir, nil, bytes.NewReader(b)); !errors.Is(err, backup.ErrExists) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if _, err := backup.Restore(t.Context(), "", nil, bytes.NewReader(b)); !errors.Is(err, mmapwal.ErrInvalid) {
		t.Errorf("no name: %v", err)
	}
	for _, dir := range []string{empty, filepath.Join(parent, "a", "b", "missing"), empty + "2/"} {
		if _, err := backup.Restore(t.Context(), dir, nil, bytes.NewReader(b)); err != nil {
			t.Error(err)
		}
		same(t, dir, content(t, open(t, dir, readOnly)), content(t, d))
	}
	content, err := os.ReadFile(file)
	if err != nil || string(content) != "content" {
		t.Errorf("the file that was there: %q, %v", content, err)
	}
	infos, err := os.ReadDir(parent)
	must(t, err)
	for _, info := range infos {
		if strings.Contains(info.Name(), "restoring") {
			t.Errorf("%s was left", info.Name())
		}
	}
}

// TestTargetAppears: somebody makes the target while the restore runs.
func TestTargetAppears(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	dir := filepath.Join(t.TempDir(), "log")
	late := readerFunc(func([]byte) (int, error) {
		must(t, os.MkdirAll(filepath.Join(dir, "mine"), 0o700))
		return 0, io.EOF
	})
	_, err := backup.Restore(t.Context(), dir, nil, io.MultiReader(late, bytes.NewReader(b)))
	if !errors.Is(err, backup.ErrExists) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Error(err)
	}
}

type readerFunc func(p []byte) (int, error)

func (r readerFunc) Read(p []byte) (int, error) { return r(p) }

func TestIdentity(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, m := full(t, d)
	if m.RaftID != 11 || m.GroupID != 12 || m.Checkpoint != 13 || m.First != 6 || m.Last != 44 || m.Snapshot.Index != 9 {
		t.Errorf("manifest %+v", m)
	}
	dir := filepath.Join(t.TempDir(), "log")
	_, err := backup.Restore(t.Context(), dir, &backup.RestoreOptions{RaftID: new(uint64(99))}, bytes.NewReader(b))
	must(t, err)
	e := open(t, dir)
	if id, group := e.Uint(mmapwal.RaftId), e.Uint(mmapwal.GroupId); id != 99 || group != 12 {
		t.Errorf("Raft ID %d, group ID %d", id, group)
	}
	if !e.Stats().Recovery.Clean {
		t.Error("not closed cleanly")
	}
}

func TestKeys(t *testing.T) {
	d := open(t, t.TempDir(), encrypted)
	build(t, d)
	b, m := full(t, d)
	if bytes.Contains(b, []byte("41/2 ")) {
		t.Error("the backup of an encrypted log has an entry in clear")
	}
	wrong := bytes.Repeat([]byte{8}, 32)
	refused(t, "no key", nil, mmapwal.ErrKeyRequired, b)
	refused(t, "wrong key", &backup.RestoreOptions{Key: wrong}, mmapwal.ErrWrongKey, b)
	refused(t, "no key at all", &backup.RestoreOptions{Key: wrong[:5]}, mmapwal.ErrKeyLength, b)
	must(t, d.RotateKey(wrong))
	next, _ := since(t, d, m)
	refused(t, "the key before", &backup.RestoreOptions{Key: key}, mmapwal.ErrWrongKey, b, next)
	same(t, "with the old key", restored(t, &backup.RestoreOptions{Key: key}, b), content(t, d))
	same(t, "with the new key", restored(t, &backup.RestoreOptions{Key: wrong}, b, next), content(t, d))
	plain := open(t, t.TempDir())
	save(t, plain, 1, 2, 1, 10)
	b, _ = full(t, plain)
	refused(t, "a key for nothing", &backup.RestoreOptions{Key: key}, mmapwal.ErrNotEncrypted, b)
}

// TestEncryptedLater: the parent is from before the log was encrypted.
func TestEncryptedLater(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	build(t, d)
	b, m := full(t, d)
	must(t, d.Close())
	d = open(t, dir, encrypted)
	save(t, d, 45, 50, 5, 100)
	next, m := since(t, d, m)
	same(t, "restored", restored(t, keyed(m), b, next), content(t, d))
}

// TestRestoredTwice: two logs from one backup, and the one it was made of, go on
// with the same entries. No two of them may seal anything under the same key.
func TestRestoredTwice(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, encrypted)
	save(t, d, 1, 20, 1, 100)
	b, m := full(t, d)
	keys := make(map[[32]byte]string)
	note := func(dir string) {
		save(t, open(t, dir, encrypted), 21, 30, 2, 100)
		names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
		must(t, err)
		for _, name := range names {
			p, err := os.ReadFile(name)
			must(t, err)
			var h entryfile.Header
			newest := uint64(0)
			for _, at := range entryfile.HeaderPages {
				if page, sequence, err := entryfile.InspectHeader(p[at : at+4096]); err == nil && sequence > newest {
					h, newest = page, sequence
				}
			}
			if h.Sealed && h.Seal.Last <= 20 {
				continue // nothing is added to it
			}
			sum := sha256.Sum256(h.WrappedKey)
			if other, ok := keys[sum]; ok {
				t.Errorf("%s and %s have one key", name, other)
			}
			keys[sum] = name
		}
	}
	save(t, d, 21, 30, 2, 100)
	must(t, d.Close())
	for range 2 {
		to := filepath.Join(t.TempDir(), "log")
		_, err := backup.Restore(t.Context(), to, keyed(m), bytes.NewReader(b))
		must(t, err)
		note(to)
	}
	if len(keys) < 2 {
		t.Errorf("only %d files were looked at", len(keys))
	}
}

// TestEveryOperationFails: the n-th operation on the disk fails, or all from the n-th
// on, as if the process were killed there. Only a complete log ever opens, and the next
// restore works.
func TestEveryOperationFails(t *testing.T) {
	d := open(t, t.TempDir(), encrypted)
	save(t, d, 1, 3, 1, 500_000) // two files
	b, m := full(t, d)
	save(t, d, 3, 4, 2, 100)
	next, _ := since(t, d, m)
	want := content(t, d)
	for name, test := range map[string]struct {
		step int
		fail func(n int) vfstest.Hook
	}{
		"once":   {1, func(n int) vfstest.Hook { return vfstest.FailNth(n, syscall.ENOSPC) }},
		"killed": {3, func(n int) vfstest.Hook { return vfstest.FailFrom(n, syscall.EIO) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n, total := 1, 1; n <= total+test.step; n += test.step {
				dir := filepath.Join(t.TempDir(), "log")
				opts := keyed(m)
				fsys := vfstest.New(noSync{vfs.OS()}, test.fail(n))
				opts.SetFS(fsys)
				_, err := backup.Restore(t.Context(), dir, opts, bytes.NewReader(b), bytes.NewReader(next))
				total = fsys.Total()
				what := fmt.Sprintf("operation %d of %d failed", n, total)
				_, missing := os.Stat(filepath.Join(dir, "wal.meta"))
				if err == nil && missing != nil || err != nil && n > total {
					t.Fatalf("%s: error %v, the log: %v", what, err, missing)
				}
				if missing == nil {
					same(t, what, content(t, open(t, dir, encrypted, readOnly)), want)
					continue
				}
				if _, err := mmapwal.Open(dir, options(encrypted, readOnly)); err == nil {
					t.Fatalf("%s: what was left opens", what)
				}
				if n%16 == 0 || n+20 > total {
					_, err := backup.Restore(t.Context(), dir, unsyncedRestore(keyed(m)), bytes.NewReader(b), bytes.NewReader(next))
					must(t, err)
					same(t, what+", and once more", content(t, open(t, dir, encrypted, readOnly)), want)
					onlyALog(t, dir)
				}
			}
		})
	}
}

// onlyALog fails the test if there is something in dir that is no file of a log.
func onlyALog(t *testing.T, dir string) {
	t.Helper()
	infos, err := os.ReadDir(dir)
	must(t, err)
	for _, info := range infos {
		if !archive.IsFileName(info.Name()) && info.Name() != "lost+found" {
			t.Errorf("%s was left", info.Name())
		}
	}
}

func TestCanceledRestore(t *testing.T) {
	d := open(t, t.TempDir())
	build(t, d)
	b, _ := full(t, d)
	ctx, cancel := context.WithCancel(t.Context())
	parent := t.TempDir()
	r := io.MultiReader(bytes.NewReader(b[:len(b)/2]), readerFunc(func([]byte) (int, error) { cancel(); return 0, io.EOF }), bytes.NewReader(b[len(b)/2:]))
	if _, err := backup.Restore(ctx, filepath.Join(parent, "log"), nil, r); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	nothingIn(t, parent)
	mine := errors.New("mine")
	r = io.MultiReader(bytes.NewReader(b[:len(b)/2]), readerFunc(func([]byte) (int, error) { return 0, mine }))
	if _, err := backup.Restore(t.Context(), filepath.Join(parent, "log"), nil, r); !errors.Is(err, mine) {
		t.Errorf("error %v", err)
	}
	nothingIn(t, parent)
}
