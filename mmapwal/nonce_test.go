package mmapwal_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/oracle"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// testNonces are all keys and nonces that were ever used, with what was encrypted
// under them. A nonce stands for a message: the place of a record, or the random
// bytes in front of a ciphertext. Keys are told by how they are wrapped.
type testNonces struct {
	t    *testing.T
	mu   sync.Mutex
	used map[string][sha256.Size]byte
	ends map[string]int64 // of the records, by data key

	direct atomic.Int64 // writes around the page cache
}

// use notes that under a key and nonce this ciphertext came to be. The same one
// may be stored twice.
func (n *testNonces) use(ciphertext []byte, format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	id, sum := fmt.Sprintf(format, args...), sha256.Sum256(ciphertext)
	if before, ok := n.used[id]; ok && before != sum {
		n.t.Errorf("a nonce was used twice: %s", id)
	}
	n.used[id] = sum
}

// testNonceFS sees all that is stored.
type testNonceFS struct {
	vfs.FS
	nonces *testNonces
}

func (f testNonceFS) OpenDir(string) (vfs.Dir, error) { return vfs.FixedDir(f), nil }

func (f testNonceFS) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return testNonceFile{file, name, f.nonces}, err
}

func (f testNonceFS) Open(name string, readOnly bool) (vfs.File, error) {
	file, err := f.FS.Open(name, readOnly)
	return testNonceFile{file, name, f.nonces}, err
}

type testNonceFile struct {
	vfs.File
	name   string
	nonces *testNonces
}

// WriteAt sees pages of wal.meta, header pages and records of entry files, and of snapshot
// files the wrapped key at 48, and a chunk with each further call.
func (f testNonceFile) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case strings.Contains(f.name, "wal.meta"):
		f.nonces.meta(p[:page.Size])
	case strings.Contains(f.name, ".wal") && off >= entryfile.DataStart:
		f.nonces.record(testNonceMem(f.File), off, p)
	case strings.Contains(f.name, ".wal") && off >= entryfile.DataStart-2*page.Size && string(p[:8]) == "RAFTWALe":
		f.nonces.use(p[3200:3264], "wrapped data key %x", p[3204:3216])
	case strings.Contains(f.name, ".snap") && off == 48:
		f.nonces.use(p, "wrapped key of a snapshot %x", p[4:16])
	case strings.Contains(f.name, ".snap") && off > 48:
		var wrapped [64]byte
		if _, err := f.ReadAt(wrapped[:], 48); err != nil && err != io.EOF {
			f.nonces.t.Error(err)
		}
		f.nonces.use(p, "snapshot key %x chunk at %d", wrapped, off)
	}
	return f.File.WriteAt(p, off)
}

func (f testNonceFile) WriteDirect(p []byte, off int64) error {
	f.nonces.direct.Add(1)
	f.nonces.record(testNonceMem(f.File), off, p)
	return f.File.WriteDirect(p, off)
}

// meta sees a page of wal.meta, or that a damaged one is wiped.
func (n *testNonces) meta(p []byte) {
	if string(p[24:32]) != "RAFTWALm" {
		return
	}
	at := 1044 + page.Order.Uint32(p[1040:])
	n.use(p[1044:at], "inline snapshot %x", p[1044:1056])
	wrapped := p[at+4 : at+4+page.Order.Uint32(p[at:])]
	n.use(wrapped, "wrapped directory key %x", wrapped[:12])
}

// record sees a part of a record, or several. What is there already may be stored again
// in front of it; the zeros behind it are not encrypted.
func (n *testNonces) record(mem []byte, off int64, p []byte) {
	header := mem[entryfile.DataStart-2*page.Size:]
	if string(header[:8]) != "RAFTWALe" { // the first page may be damaged, or the second one written first
		header = header[page.Size:]
	}
	key := fmt.Sprintf("%x", header[3200:3264])
	p = bytes.TrimRight(p, "\x00")
	if end := n.ends[key]; off < end && bytes.HasPrefix(p, mem[off:end]) {
		off, p = end, p[end-off:]
	}
	now := mem[off : off+int64(len(p))]
	if bytes.Equal(now, p) {
		return
	}
	if header[63]&16 == 0 && len(bytes.TrimLeft(now, "\x00")) > 0 || off < n.ends[key] {
		n.t.Errorf("the data at %d is overwritten", off)
	}
	n.ends[key] = off + int64(len(p))
	n.use(p, "data key %s record at %d", key, off)
}

// testNonceMem returns the content of a file.
func testNonceMem(f vfs.File) []byte {
	size, err := f.Size()
	if err != nil {
		panic(err)
	}
	m, err := f.Map(size)
	if err != nil {
		panic(err)
	}
	return m.Bytes()
}

// TestNoncesDoNotRepeat over histories with power cuts, recoveries within
// recoveries, kills, clean closes, and copies that both go on.
func TestNoncesDoNotRepeat(t *testing.T) {
	seed := testLogSeed(t)
	nonces := &testNonces{t: t, used: make(map[string][sha256.Size]byte), ends: make(map[string]int64)}
	logs, least := uint64(60), 5000
	if testing.Short() {
		logs, least = 12, 1000
	}
	for k := range logs {
		r := rand.New(rand.NewPCG(seed, k))
		disk := simdisk.New()
		if err := disk.MkdirAll("/log"); err != nil {
			t.Fatal(err)
		}
		copies := []*simdisk.FS{disk}
		for range 6 {
			var next []*simdisk.FS
			for _, disk := range copies {
				testNonceRun(r, disk, nonces)
				next = append(next, disk.Crash(r), disk.Crash(r))
			}
			r.Shuffle(len(next), func(i, j int) { next[i], next[j] = next[j], next[i] })
			copies = next[:min(len(next), 3)]
		}
	}
	t.Logf("%d keys and nonces, %d writes around the page cache", len(nonces.used), nonces.direct.Load())
	if len(nonces.used) < least || nonces.direct.Load() == 0 {
		t.Error("too few")
	}
}

// testNonceRun does some calls on the log on disk, until the power goes.
func testNonceRun(r *rand.Rand, disk *simdisk.FS, nonces *testNonces) {
	disk.CutAt(1 + r.IntN(1<<r.IntN(12)))
	h := host.OS()
	h.FS = testNonceFS{disk, nonces}
	for range 1 + r.IntN(3) {
		d, err := mmapwal.OpenOn(h, "/log", testLogOptions(testLogEncrypted, func(o *mmapwal.Options) {
			if r.IntN(2) == 0 {
				testLogNoSync(o)
			}
			if r.IntN(2) == 0 { // then what is large goes around the page cache
				o.CacheSize = testLogMiB
			}
		}))
		if err != nil {
			return
		}
		m, err := oracle.Read(d)
		if err != nil {
			nonces.t.Error(err)
		}
		m.Data = testLogKillData
		for range r.IntN(20) {
			op := oracle.Next(r, m)
			if r.IntN(10) == 0 {
				err = d.RotateKey(testLogKey(32, 7))
			} else if err = op.Do(d, m); err == nil {
				m = op.Done(m)
			}
			if err != nil {
				break
			}
		}
		_ = d.Close()
	}
}
