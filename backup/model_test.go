package backup_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/seed-2fef92ad/raftwal/backup"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestModel does random calls on a log, makes backups and increments at random
// moments, and restores each chain: it must hold what the model held then. SEEDS in
// the environment is the number of runs.
func TestModel(t *testing.T) {
	seeds := uint64(6)
	if s := os.Getenv("SEEDS"); s != "" {
		var err error
		seeds, err = strconv.ParseUint(s, 10, 64)
		must(t, err)
	}
	for seed := range seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			runModel(t, seed)
		})
	}
}

// history is a log under test beside its model.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	key   []byte
	dir   string
	d     *mmapwal.DiskStorage
	model *oracle.Model
	chain [][]byte // of backups
	last  mmapwal.Manifest
}

func runModel(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &history{t: t, rng: rng, dir: filepath.Join(t.TempDir(), "log")}
	largest := []int{100, 40_000, 300_000}[rng.IntN(3)]
	h.model = &oracle.Model{Retain: rng.Uint64N(2) * 20, Data: func(i, term uint64) []byte {
		return oracle.Data(i, term, int(i*7919+term*104729)%largest)
	}}
	if rng.IntN(2) == 0 {
		h.key = key
	}
	h.open()
	for range 150 {
		switch rng.IntN(12) {
		case 0:
			h.reopen()
		case 1:
			h.backup()
		default:
			h.call()
		}
	}
	h.backup()
}

func (h *history) open() {
	h.d = open(h.t, h.dir, func(o *mmapwal.Options) { o.Key, o.RetainEntries = h.key, h.model.Retain })
}

// reopen closes the log, or makes it go on as after a kill, in a copy.
func (h *history) reopen() {
	if h.rng.IntN(2) == 0 {
		old := h.dir
		h.dir = h.t.TempDir()
		infos, err := os.ReadDir(old)
		must(h.t, err)
		for _, info := range infos {
			b, err := os.ReadFile(filepath.Join(old, info.Name()))
			if errors.Is(err, fs.ErrNotExist) {
				continue // a dead file that was being removed
			}
			must(h.t, err)
			must(h.t, os.WriteFile(filepath.Join(h.dir, info.Name()), b, 0o600))
		}
	}
	must(h.t, h.d.Close())
	h.open()
}

// call does what raft might do, clears data, or compacts.
func (h *history) call() {
	m := h.model
	op := oracle.Next(h.rng, m)
	switch h.rng.IntN(12) {
	case 0:
		op = oracle.Op{Truncate: m.Base[0] + 1 + h.rng.Uint64N(m.Snap[0]-m.Base[0]+1)}
	case 1:
		if m.Snap[0] > m.Base[0]+1 {
			op = oracle.Op{Compact: m.Base[0] + 1 + h.rng.Uint64N(m.Snap[0]-m.Base[0])}
		}
	}
	must(h.t, op.Do(h.d, m))
	h.model = op.Done(m)
}

// backup makes a full backup or an increment, restores the chain, and compares.
func (h *history) backup() {
	var b []byte
	if h.chain == nil || h.rng.IntN(4) == 0 {
		b, h.last = full(h.t, h.d)
		h.chain = nil
	} else {
		b, h.last = since(h.t, h.d, h.last)
	}
	h.chain = append(h.chain, b)
	var opts *backup.RestoreOptions
	if h.key != nil {
		opts = &backup.RestoreOptions{Key: h.key}
	}
	same(h.t, fmt.Sprintf("chain of %d", len(h.chain)), restored(h.t, opts, h.chain...), h.model.String())
	same(h.t, "the log itself", content(h.t, h.d), h.model.String())
}
