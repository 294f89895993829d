package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/seed-2fef92ad/raftwal/internal/host"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"github.com/seed-2fef92ad/raftwal/internal/vfs/simdisk"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
	"go.etcd.io/raft/v3/raftpb"
)

const (
	secretDir  = "/log"
	secretLast = 40 // the last entry
	secretMiB  = 1 << 20
)

func secretData(i uint64) []byte { return bytes.Repeat(fmt.Appendf(nil, "%d ", i), int(i*97%200)) }

func secretOptions(readOnly bool) *mmapwal.Options {
	return &mmapwal.Options{
		Key: bytes.Repeat([]byte{7}, 32), RequireEncryption: true, ReadOnly: readOnly,
		FileDataSize: secretMiB, Logger: slog.New(slog.DiscardHandler),
	}
}

func secretOpen(disk *simdisk.FS, readOnly bool) (*mmapwal.DiskStorage, error) {
	h := host.OS()
	h.FS = disk
	return mmapwal.OpenOn(h, secretDir, secretOptions(readOnly))
}

// secretLog makes an encrypted log: a sealed file and a tail, a snapshot in a file.
func secretLog(f *testing.F, closed bool) *simdisk.FS {
	f.Helper()
	disk := simdisk.New()
	if err := disk.MkdirAll(secretDir); err != nil {
		f.Fatal(err)
	}
	for from := uint64(1); from < secretLast; from += secretLast / 2 {
		wal, err := secretOpen(disk, false)
		if err != nil {
			f.Fatal(err)
		}
		var es []*raftpb.Entry
		for i := from; i < from+secretLast/2; i++ {
			es = append(es, &raftpb.Entry{Index: &i, Term: new(uint64(1)), Data: secretData(i)})
		}
		err = wal.Save(nil, es, nil)
		if from == 1 {
			err = errors.Join(err, wal.CreateSnapshot(2, &raftpb.ConfState{Voters: []uint64{1}}, make([]byte, 3000)))
		}
		if closed || from == 1 {
			err = errors.Join(err, wal.Close())
		}
		if err != nil {
			f.Fatal(err)
		}
	}
	return disk
}

// FuzzDecrypt changes bytes of an encrypted log, and makes the checksums right
// again if told to. All that is read afterwards is what was saved; a change that
// checksums do not tell is ErrTampered.
func FuzzDecrypt(f *testing.F) {
	logs := map[bool]*simdisk.FS{true: secretLog(f, true), false: secretLog(f, false)}
	infos, err := logs[true].List(secretDir)
	if err != nil {
		f.Fatal(err)
	}
	for k := range infos {
		f.Add(uint8(k), true, uint32(40), []byte{1}, true)
		f.Add(uint8(k), false, uint32(secretMiB+40), []byte{1}, true)
		f.Add(uint8(k), true, uint32(secretMiB-8192+70), []byte{255}, true)
		f.Add(uint8(k), true, uint32(secretMiB-4096+3210), []byte{3, 4}, false)
		f.Add(uint8(k), true, uint32(120), []byte{3, 4, 5, 6, 7, 8, 9}, true)
	}
	f.Fuzz(func(t *testing.T, which uint8, closed bool, at uint32, change []byte, repair bool) {
		if len(change) > 4096 {
			return
		}
		disk := logs[closed].Crash(rand.New(rand.NewPCG(1, 1)))
		infos, err := disk.List(secretDir)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(secretDir, infos[int(which)%len(infos)].Name)
		secretChange(t, disk, name, int64(at), change, repair)
		secretRead(t, disk)
	})
}

// secretChange xors change into the file from offset at on.
func secretChange(t *testing.T, disk *simdisk.FS, name string, at int64, change []byte, repair bool) {
	file, err := disk.Open(name, false)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		t.Fatal(err)
	}
	content := make([]byte, size)
	if _, err := file.ReadAt(content, 0); err != nil {
		t.Fatal(err)
	}
	for k, b := range change {
		content[(at+int64(k))%size] ^= b
	}
	if repair {
		secretRepair(filepath.Ext(name), content)
	}
	if _, err := file.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
}

// secretRepair makes all checksums of a file right.
func secretRepair(ext string, content []byte) {
	switch ext {
	case ".meta":
		for p := range slicesOf(content) {
			if used := page.Order.Uint32(p[128:]); used >= 64 && used <= page.Size {
				page.Seal(p[:used], 60)
			}
		}
	case ".snap":
		page.Order.PutUint32(content[12:], page.Sum(0, content[16:]))
	case ".wal":
		for p := range slicesOf(content[secretMiB-2*page.Size : secretMiB]) {
			if string(p[:8]) == "RAFTWALe" {
				page.Seal(p, 12)
			}
		}
		secretRepairRecords(content)
	}
}

func secretRepairRecords(content []byte) {
	salt := page.Order.Uint32(content[secretMiB-2*page.Size+56:])
	for at := secretMiB; at+32 <= len(content); {
		end := at + 32 + int(page.Order.Uint32(content[at+28:]))
		if page.Order.Uint64(content[at+16:]) == 0 || end > len(content) || end < at {
			return
		}
		page.Order.PutUint32(content[at:], page.Sum(salt, content[at+4:end]))
		at = (end + 7) &^ 7
	}
}

// slicesOf yields the pages of content.
func slicesOf(content []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for at := 0; at+page.Size <= len(content); at += page.Size {
			if !yield(content[at : at+page.Size]) {
				return
			}
		}
	}
}

// secretRead opens the log, reading only, and compares all that it answers.
func secretRead(t *testing.T, disk *simdisk.FS) {
	wal, err := secretOpen(disk, true)
	if err != nil {
		secretTyped(t, err)
		return
	}
	defer wal.Close()
	first, _ := wal.FirstIndex()
	last, _ := wal.LastIndex()
	if first != 3 || last > secretLast {
		t.Fatalf("entries %d to %d", first, last)
	}
	for i := first; i <= last; i++ {
		es, err := wal.Entries(i, i+1, math.MaxUint64)
		if err != nil {
			secretTyped(t, err)
			continue
		}
		if len(es) != 1 || es[0].GetIndex() != i || es[0].GetTerm() != 1 || !bytes.Equal(es[0].GetData(), secretData(i)) {
			t.Fatalf("entry %d reads %v", i, es)
		}
	}
	snap, err := wal.Snapshot()
	if err != nil {
		secretTyped(t, err)
	} else if snap.GetMetadata().GetIndex() != 2 || !bytes.Equal(snap.GetData(), make([]byte, 3000)) {
		t.Fatalf("snapshot %d of %d bytes", snap.GetMetadata().GetIndex(), len(snap.GetData()))
	}
}

func secretTyped(t *testing.T, err error) {
	for _, typed := range []error{mmapwal.ErrCorrupt, mmapwal.ErrTampered, mmapwal.ErrWrongKey, mmapwal.ErrForeign, mmapwal.ErrVersion, mmapwal.ErrNotEncrypted} {
		if errors.Is(err, typed) {
			return
		}
	}
	t.Fatalf("error %v", err)
}
