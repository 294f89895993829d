package inspect

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// TestHardStateOfLostEntries: after a power cut under NoSync the tools show the hard state
// that Open does, for reading and for writing, and call nothing damage.
func TestHardStateOfLostEntries(t *testing.T) {
	const seed = 1
	for _, key := range [][]byte{nil, bytes.Repeat([]byte{7}, 32)} {
		r := rand.New(rand.NewPCG(seed, 9))
		other := 0
		for range 20 {
			disk := simdisk.New()
			must(t, disk.MkdirAll("/log"))
			opts := mmapwal.Options{Sync: mmapwal.NoSync, FileDataSize: 1 << 20, Key: key, Logger: slog.New(slog.DiscardHandler)}
			open := func(disk *simdisk.FS, opts mmapwal.Options) *mmapwal.DiskStorage {
				t.Helper()
				h := host.Host{FS: disk, Random: rand.NewChaCha8([32]byte{byte(r.Uint32())}), Go: func(f func()) { f() }, After: host.Never}
				d, err := mmapwal.OpenOn(h, "/log", &opts)
				must(t, err)
				return d
			}
			d := open(disk, opts)
			m := &oracle.Model{Data: func(i, term uint64) []byte { return oracle.Data(i, term, int(i*7919+term*104729)%4000) }}
			for range 20 + r.IntN(40) {
				op := oracle.Next(r, m)
				must(t, op.Do(d, m))
				if m = op.Done(m); r.IntN(10) == 0 {
					must(t, d.Sync())
				}
			}
			image := disk.Remains().Random(r)
			o := Options{Check: true, once: true}
			if key != nil {
				var err error
				o.Wrapper, err = encryption.NewKeyWrapper(key)
				must(t, err)
			}
			l, err := Look(context.Background(), image, "/log", o)
			must(t, err)
			if l.Damaged() {
				t.Fatalf("SEED=%d: %+v", seed, l.Problems)
			}
			reading, writing := opts, opts
			reading.ReadOnly = true
			for _, o := range []mmapwal.Options{reading, writing} {
				e := open(image, o)
				got, err := oracle.HardState(e)
				must(t, err)
				want := [3]uint64{}
				if h := l.Meta.HardState; h != nil {
					want = [3]uint64{h.Term, h.Vote, min(max(h.Commit, l.Meta.Snapshot.Index), l.Last)}
				}
				if got != want {
					t.Fatalf("SEED=%d: Open (ReadOnly: %v) has the hard state %v, Look %v: %+v", seed, o.ReadOnly, got, want, l.Problems)
				}
				if got != m.Hard {
					other++
				}
				must(t, e.Close())
			}
		}
		if other == 0 {
			t.Error("no image has an older hard state")
		}
	}
}
