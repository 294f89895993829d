package repair

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

// sample is a log to be damaged: with a snapshot, entries that it covers and that
// were retained, and entries that were replaced, in a file and across files.
type sample struct {
	content map[string]string
	key     []byte
	data    map[uint64]string // of the entries, by index
	last    uint64
}

// samples returns a log that was closed, and one whose owner died.
func samples(t *testing.T, key []byte) (closed, crashed *sample) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "made")
	s := &sample{key: key, data: make(map[uint64]string), last: 30}
	write := func(wal *mmapwal.DiskStorage, from, to, term uint64) {
		for i := from; i <= to; i++ {
			s.data[i] = fmt.Sprintf("entry %d of term %d", i, term)
			e := &raftpb.Entry{Index: new(i), Term: new(term), Data: []byte(s.data[i])}
			must(t, wal.Save(&raftpb.HardState{Term: new(term), Vote: new(uint64(1)), Commit: new(uint64(1))}, []*raftpb.Entry{e}, nil))
		}
	}
	again := func(wal *mmapwal.DiskStorage) *mmapwal.DiskStorage { // begins a new file
		if wal != nil {
			crashed := contentOf(t, dir)
			must(t, wal.Close())
			put(t, dir, crashed)
		}
		wal, err := mmapwal.Open(dir, &mmapwal.Options{Key: bytes.Clone(key), FileDataSize: entryfile.MinDataBytes, RetainEntries: 4, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		return wal
	}
	wal := again(nil)
	write(wal, 1, 10, 1)
	write(wal, 8, 12, 2)
	wal = again(wal)
	write(wal, 11, 20, 3)
	must(t, wal.CreateSnapshot(9, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}, []byte("state")))
	wal = again(wal)
	write(wal, 19, 30, 4)
	dead := *s
	dead.content = contentOf(t, dir)
	must(t, wal.Close())
	s.content = contentOf(t, dir)
	return s, &dead
}

// ruin damages a log, and says how.
func ruin(r *rand.Rand, s *sample) (content map[string]string, how []string) {
	content = maps.Clone(s.content)
	names := slices.Sorted(maps.Keys(content))
	for range 1 + r.IntN(3) {
		name := names[r.IntN(len(names))]
		p := []byte(content[name])
		if len(p) == 0 {
			continue
		}
		at := r.IntN(min(len(p), entryfile.DataStart+3000))
		switch {
		case r.IntN(3) == 0 && len(p) > entryfile.DataStart:
			at = entryfile.DataStart + r.IntN(2000)
		case r.IntN(2) == 0 && len(p) > entryfile.DataStart:
			at = int(entryfile.HeaderPages[r.IntN(2)]) + r.IntN(200)
		case r.IntN(2) == 0:
			at = r.IntN(min(len(p), 640))
		}
		at = min(at, len(p)-1)
		switch kind := r.IntN(20); {
		case kind < 12:
			p[at] ^= byte(1 + r.IntN(255))
			how = append(how, fmt.Sprintf("%s: byte %d", name, at))
		case kind < 16:
			at &^= page.Size - 1
			clear(p[at:min(at+page.Size, len(p))])
			how = append(how, fmt.Sprintf("%s: page at %d zeroed", name, at))
		case kind < 18:
			p = p[:at]
			how = append(how, fmt.Sprintf("%s: cut at %d", name, at))
		case kind < 19:
			delete(content, name)
			how = append(how, fmt.Sprintf("%s: removed", name))
			continue
		default:
			other := names[r.IntN(len(names))]
			p = []byte(content[other])
			how = append(how, fmt.Sprintf("%s: replaced by %s", name, other))
		}
		content[name] = string(p)
	}
	return content, how
}

// TestRandomDamage: whatever is done to a log, a repair either refuses and changes
// nothing, or ends in a log without damage that holds what was saved, up to what it
// says is lost. RANDOM=n takes n damages, SEED is where it begins.
func TestRandomDamage(t *testing.T) {
	count, seed := 60/stride, uint64(1)
	if n, err := strconv.Atoi(os.Getenv("RANDOM")); err == nil {
		count = n
	}
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	plain, plainDead := samples(t, nil)
	secret, secretDead := samples(t, bytes.Repeat([]byte("k"), 32))
	for k := range count {
		for n, s := range []*sample{plain, plainDead, secret, secretDead} {
			content, how := ruin(rand.New(rand.NewPCG(seed+uint64(k), uint64(n))), s)
			if !repairs(t, s, content, fmt.Sprintf("sample %d: %q", n, how)) {
				t.Fatalf("SEED=%d go test ./internal/repair -run TestRandomDamage", seed+uint64(k))
			}
		}
	}
}

// TestHiddenDamage: damage that hides what there was is not taken for less than it is.
func TestHiddenDamage(t *testing.T) {
	plain, plainDead := samples(t, nil)
	_, secretDead := samples(t, bytes.Repeat([]byte("k"), 32))
	for name, test := range map[string]struct {
		s     *sample
		spoil func(content map[string]string)
	}{
		"cut between a record and the one that replaced it": {plainDead, func(c map[string]string) { c["00001.wal"] = c["00001.wal"][:1049160] }},
		"last file gone, wal.meta cut":                      {plain, func(c map[string]string) { delete(c, "00003.wal"); c["wal.meta"] = c["wal.meta"][:4329] }},
		"records and slots of the last file zeroed": {secretDead, func(c map[string]string) {
			p := []byte(c["00003.wal"])
			clear(p[:page.Size])
			clear(p[entryfile.DataStart:][:page.Size])
			c["00003.wal"] = string(p)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			content := maps.Clone(test.s.content)
			test.spoil(content)
			repairs(t, test.s, content, name)
		})
	}
}

// repairs repairs a log that was a sample, and checks what a repair promises. how
// says what was done to it.
func repairs(t *testing.T, s *sample, content map[string]string, how string) bool {
	t.Helper()
	root, err := os.MkdirTemp(t.TempDir(), "")
	must(t, err)
	defer os.RemoveAll(root)
	dir, backup := filepath.Join(root, "log"), filepath.Join(root, "backup")
	put(t, dir, content)
	fail := func(format string, args ...any) bool {
		t.Errorf("%s\n%s", fmt.Sprintf(format, args...), how)
		return false
	}
	o := Options{NotDgraph: true}
	if s.key != nil {
		if o.Wrapper, err = encryption.NewKeyWrapper(s.key); err != nil {
			return fail("%v", err)
		}
	}
	p, err := Rehearse(context.Background(), dir, o)
	if errors.Is(err, mmapwal.ErrForeign) { // too little of wal.meta is left to tell whose it is
		return maps.Equal(contentOf(t, dir), content) || fail("it has changed")
	}
	if err != nil {
		return fail("rehearse: %v", err)
	}
	defer p.Close()
	r := &p.Report
	if r.Refused != "" || !r.Needed {
		now := contentOf(t, dir)
		return maps.Equal(now, content) || fail("it has changed")
	}
	if err := p.Execute(context.Background(), backup); err != nil {
		return fail("execute: %v", err)
	}
	now, saved := contentOf(t, dir), contentOf(t, backup)
	for name, p := range content {
		if now[name] != p && saved[name] != p && !strings.HasSuffix(name, entryfile.SpareSuffix) {
			return fail("%s as it was is neither in the log nor in the backup", name)
		}
	}
	l, err := inspect.Look(context.Background(), vfs.OS(), dir, inspect.Options{Check: true, Wrapper: o.Wrapper})
	if err != nil || l.Damaged() {
		return fail("after the repair: %v, %+v", err, l)
	}
	return s.holds(dir, r, fail)
}

// holds opens the log and compares its entries with those that were saved.
func (s *sample) holds(dir string, r *Report, fail func(string, ...any) bool) bool {
	wal, err := mmapwal.Open(dir, &mmapwal.Options{Key: bytes.Clone(s.key), FileDataSize: entryfile.MinDataBytes, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fail("open: %v", err)
	}
	defer wal.Close()
	first, _ := wal.FirstIndex()
	last, _ := wal.LastIndex()
	if last < s.last && r.Lost == nil && !r.More {
		return fail("the entries end at %d, and nothing is said to be lost: %+v", last, r)
	}
	if r.Lost != nil && r.Lost.First != last+1 || first > 10 || last < 9 {
		return fail("entries %d to %d: %+v", first, last, r)
	}
	if last < first {
		return true
	}
	es, err := wal.Entries(first, last+1, 1<<30)
	if err != nil {
		return fail("entries: %v", err)
	}
	for _, e := range es {
		if string(e.Data) != s.data[e.GetIndex()] && !r.Stale {
			return fail("entry %d holds %q, not %q: %+v", e.GetIndex(), e.Data, s.data[e.GetIndex()], r)
		}
	}
	return true
}
