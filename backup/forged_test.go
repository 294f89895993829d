package backup_test

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// forged returns a backup with another manifest, all hashes right: what somebody can make who
// has no key.
func forged(t *testing.T, b []byte, edit func(m *mmapwal.Manifest)) []byte {
	t.Helper()
	type part struct {
		archive.Part
		content []byte
	}
	var parts []part
	m, err := archive.Read(bytes.NewReader(b), func(p archive.Part) error {
		content, err := io.ReadAll(p.Reader)
		parts = append(parts, part{p, content})
		return err
	})
	must(t, err)
	var out bytes.Buffer
	w := archive.NewWriter(&out, m.Created)
	for _, p := range parts {
		must(t, w.Begin(p.Name, p.Offset, int64(len(p.content))))
		_, err := w.Write(p.content)
		must(t, err)
		w.End()
	}
	edit(&m)
	must(t, w.Finish(&m))
	return out.Bytes()
}

// TestForgedBackups: with the key, only what the log's key made is restored.
func TestForgedBackups(t *testing.T) {
	d := open(t, t.TempDir(), encrypted)
	save(t, d, 1, 20, 1, 100)
	first, m := full(t, d)
	save(t, d, 21, 30, 1, 100)
	second, m2 := since(t, d, m)
	save(t, d, 31, 40, 1, 100)
	third, _ := since(t, d, m2)
	evil := open(t, t.TempDir())
	save(t, evil, 1, 20, 9, 100)
	plain, _ := full(t, evil)

	claims := func(m *mmapwal.Manifest) { m.Encrypted = true }
	follows := func(m *mmapwal.Manifest, parent mmapwal.Manifest) {
		m.Encrypted, m.LogID, m.Parent = true, parent.LogID, parent.Hash()
	}
	for name, chain := range map[string][][]byte{
		"says that it is encrypted":         {forged(t, plain, claims)},
		"and has the MAC of another":        {forged(t, plain, func(o *mmapwal.Manifest) { claims(o); o.MAC = m.MAC })},
		"another hard state":                {forged(t, first, func(m *mmapwal.Manifest) { m.HardState.Vote++ })},
		"an end that hides entries":         {forged(t, first, func(m *mmapwal.Manifest) { m.Last-- })},
		"without a MAC":                     {forged(t, first, func(m *mmapwal.Manifest) { m.MAC = "" })},
		"a MAC that is no hash":             {forged(t, first, func(m *mmapwal.Manifest) { m.MAC = "x" })},
		"an increment that is plain":        {first, forged(t, plain, func(o *mmapwal.Manifest) { follows(o, m); o.Encrypted = false })},
		"an increment that says it is not":  {first, forged(t, plain, func(o *mmapwal.Manifest) { follows(o, m) })},
		"with the MAC of a genuine one":     {first, forged(t, plain, func(o *mmapwal.Manifest) { follows(o, m); o.MAC = m2.MAC })},
		"one increment left out":            {first, forged(t, third, func(o *mmapwal.Manifest) { o.Parent = m.Hash() })},
		"an increment made the first":       {forged(t, third, func(o *mmapwal.Manifest) { o.Parent = "" })},
		"a plain one in front of increment": {forged(t, plain, func(*mmapwal.Manifest) {}), forged(t, second, func(o *mmapwal.Manifest) { o.Parent = "" })},
	} {
		t.Run(name, func(t *testing.T) {
			var readers []io.Reader
			for _, b := range chain {
				readers = append(readers, bytes.NewReader(b))
			}
			_, err := backup.Restore(t.Context(), t.TempDir(), unsyncedRestore(keyed(m)), readers...)
			if !errors.Is(err, mmapwal.ErrTampered) && !errors.Is(err, backup.ErrDamaged) && !errors.Is(err, backup.ErrChain) && !errors.Is(err, mmapwal.ErrNotEncrypted) {
				t.Errorf("error %v", err)
			}
		})
	}
	same(t, "genuine", restored(t, keyed(m), first, second, third), content(t, d))
}

// TestForgedParent: an increment relies on nothing that somebody without the key can have
// written to the place where the backups are kept.
func TestForgedParent(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir)
	save(t, d, 1, 3, 1, 500_000) // two files
	early, before := full(t, d)
	must(t, d.Close())
	d = open(t, dir, encrypted)
	save(t, d, 4, 5, 1, 100)
	first, m := full(t, d)
	if m.PlainFiles != 2 {
		t.Errorf("%d files are not encrypted, want 2", m.PlainFiles)
	}
	bad := m
	bad.Files = append([]archive.File(nil), m.Files...)
	bad.Files[0].Data = []archive.Range{{Offset: 1 << 20, Bytes: 8, SHA256: m.Files[0].Data[0].SHA256}}
	if _, err := d.BackupSince(t.Context(), io.Discard, bad); !errors.Is(err, mmapwal.ErrTampered) {
		t.Errorf("a parent that was changed: %v", err)
	}
	next, m2 := since(t, d, before)
	for _, f := range m2.Files {
		if f.Based {
			t.Errorf("%s relies on a backup that nothing vouches for", f.Name)
		}
	}
	same(t, "behind a plain one", restored(t, keyed(m2), early, next), content(t, d))
	save(t, d, 6, 7, 1, 100)
	last, m3 := since(t, d, m)
	if m3.Find("00001.wal") == nil || !m3.Find("00001.wal").Based {
		t.Error("an increment behind a genuine one has all files anew")
	}
	same(t, "behind an encrypted one", restored(t, keyed(m3), first, last), content(t, d))
	lie := forged(t, next, func(m *mmapwal.Manifest) { m.Files[0].Based = true })
	_, err := backup.Restore(t.Context(), t.TempDir(), unsyncedRestore(keyed(m2)), bytes.NewReader(early), bytes.NewReader(lie))
	if !errors.Is(err, mmapwal.ErrTampered) {
		t.Errorf("an increment that relies on a plain one: %v", err)
	}
}

// TestImplausibleBackups: what a restore does is bounded by what the backup holds, not by what
// it claims.
func TestImplausibleBackups(t *testing.T) {
	d := open(t, t.TempDir())
	save(t, d, 1, 20, 1, 100)
	must(t, d.CreateSnapshot(5, nil, bytes.Repeat([]byte("snapshot"), 1000)))
	b, m := full(t, d)
	find := func(m *mmapwal.Manifest, suffix string) *archive.File {
		for k := range m.Files {
			if strings.HasSuffix(m.Files[k].Name, suffix) {
				return &m.Files[k]
			}
		}
		t.Fatal("no file ", suffix)
		return nil
	}
	for name, edit := range map[string]func(m *mmapwal.Manifest){
		"a huge entry file":    func(m *mmapwal.Manifest) { find(m, ".wal").Size = 1 << 60 },
		"a huge snapshot":      func(m *mmapwal.Manifest) { find(m, ".snap").Size = 1 << 40 },
		"a huge wal.meta":      func(m *mmapwal.Manifest) { find(m, ".meta").Size++ },
		"bytes that are holes": func(m *mmapwal.Manifest) { f := find(m, ".wal"); f.Size, f.Data[0].Bytes = 1<<33, 1<<32 },
		"the same bytes often": func(m *mmapwal.Manifest) { f := find(m, ".wal"); f.Data = append(f.Data, f.Data[0]) },
		"a file twice":         func(m *mmapwal.Manifest) { m.Files = append(m.Files, m.Files[0]) },
		"a file left out":      func(m *mmapwal.Manifest) { m.Files = m.Files[1:] },
		"a part left out":      func(m *mmapwal.Manifest) { find(m, ".wal").Data = nil },
	} {
		refused(t, name, nil, backup.ErrDamaged, forged(t, b, func(o *mmapwal.Manifest) {
			for k := range o.Files {
				o.Files[k].Data = slices.Clone(o.Files[k].Data)
			}
			edit(o)
		}))
	}
	parts := map[string][]archive.Range{
		"00001.wal":                              {{Offset: 1 << 60, Bytes: 1}},
		"wal.meta":                               {{Offset: 4 << 12, Bytes: 1}},
		"0000000000000001-0000000000000005.snap": {{Offset: 0, Bytes: 5}, {Offset: 6, Bytes: 1}},
	}
	for name, ranges := range parts {
		var out bytes.Buffer
		w := archive.NewWriter(&out, m.Created)
		for _, r := range ranges {
			must(t, w.Begin(name, r.Offset, r.Bytes))
			_, err := w.Write(make([]byte, r.Bytes))
			must(t, err)
			w.End()
		}
		must(t, w.Finish(&mmapwal.Manifest{Version: 1}))
		refused(t, name, nil, backup.ErrDamaged, out.Bytes())
	}
}

// TestNotEncryptedAnyMore: no chain makes a plain log of an encrypted one.
func TestNotEncryptedAnyMore(t *testing.T) {
	d := open(t, t.TempDir(), encrypted)
	save(t, d, 1, 5, 1, 100)
	first, m := full(t, d)
	evil := open(t, t.TempDir())
	must(t, evil.Save(&raftpb.HardState{Term: new(uint64(3))}, nil, nil))
	plain, _ := full(t, evil)
	next := forged(t, plain, func(o *mmapwal.Manifest) { o.LogID, o.Parent = m.LogID, m.Hash() })
	o := unsyncedRestore(keyed(m))
	if _, err := backup.Restore(t.Context(), t.TempDir(), o, bytes.NewReader(first), bytes.NewReader(next)); err == nil {
		t.Error("restored with the key")
	}
	o.Key = nil
	if _, err := backup.Restore(t.Context(), t.TempDir(), o, bytes.NewReader(first), bytes.NewReader(next)); !errors.Is(err, mmapwal.ErrKeyRequired) {
		t.Errorf("without: %v", err)
	}
}
