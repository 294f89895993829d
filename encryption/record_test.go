package encryption_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
)

func TestRecordIsStandardGCM(t *testing.T) {
	k := newDirectoryKey(t)
	f, _, err := k.NewFileKey(new(counting), nil)
	if err != nil {
		t.Fatal(err)
	}
	var s encryption.Scratch
	got := must[[]byte](t)(f.SealRecord(&s, []byte("before"), 0x010203040506, []byte("payload"), []byte("header")))
	nonce := []byte{1, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6}
	want := append([]byte("before"), stdSeal(t, from(1, 32), nonce, []byte("payload"), []byte("header"))...)
	wantBytes(t, "record", got, want)
}

func TestRecordNotices(t *testing.T) {
	seal, open := newFileKey(t)
	var s encryption.Scratch
	const offset = 1 << 20
	ad := []byte("header")
	c := must[[]byte](t)(seal.SealRecord(&s, nil, offset, []byte("payload"), ad))
	flips(c, func(bad []byte) {
		p, err := open.OpenRecord(&s, nil, offset, bad, ad)
		wantErr(t, err, encryption.ErrTampered)
		wantBytes(t, "plaintext", p, nil)
	})
	flips(ad, func(bad []byte) {
		_, err := open.OpenRecord(&s, nil, offset, c, bad)
		wantErr(t, err, encryption.ErrTampered)
	})
	for _, at := range []int64{0, offset - 1, offset + 1, offset << 32, -1, -offset, math.MinInt64, math.MaxInt64} {
		_, err := open.OpenRecord(&s, nil, at, c, ad)
		wantErr(t, err, encryption.ErrTampered)
	}
	other, _ := newFileKey(t)
	_, err := other.OpenRecord(&s, nil, offset, c, ad)
	wantErr(t, err, encryption.ErrTampered)
	wantBytes(t, "payload", must[[]byte](t)(seal.OpenRecord(&s, nil, offset, c, ad)), []byte("payload"))
}

func TestNoNonceTwice(t *testing.T) {
	seal, open := newFileKey(t)
	var s encryption.Scratch
	for _, c := range []struct {
		offset int64
		want   error
	}{
		{-1, encryption.ErrReuse}, {math.MinInt64, encryption.ErrReuse}, {0, nil}, {0, encryption.ErrReuse}, {8, nil},
		{8, encryption.ErrReuse}, {7, encryption.ErrReuse}, {math.MaxInt64, encryption.ErrReuse}, {9, nil},
		{math.MaxInt64 - 1, nil}, {math.MaxInt64 - 1, encryption.ErrReuse}, {math.MaxInt64, encryption.ErrReuse},
	} {
		if _, err := seal.SealRecord(&s, nil, c.offset, nil, nil); err != c.want {
			t.Errorf("offset %d: error %v, want %v", c.offset, err, c.want)
		}
		_, err := open.SealRecord(&s, nil, c.offset, nil, nil)
		wantErr(t, err, encryption.ErrReuse)
	}
	wantErr(t, open.EncryptTo(new(bytes.Buffer), nil, nil), encryption.ErrReuse)
}

func TestRecordInPlace(t *testing.T) {
	seal, open := newFileKey(t)
	var s encryption.Scratch
	for n := range int64(100) {
		buf := append(make([]byte, 0, n+encryption.TagBytes), from(byte(n), int(n))...)
		c := must[[]byte](t)(seal.SealRecord(&s, buf[:0], n, buf, nil))
		p := must[[]byte](t)(open.OpenRecord(&s, c[:0], n, c, nil))
		wantBytes(t, "payload", p, from(byte(n), int(n)))
		if n > 0 && &p[0] != &buf[0] {
			t.Errorf("%d bytes: not in place", n)
		}
	}
}

func TestRecordAllocations(t *testing.T) {
	seal, open := newFileKey(t)
	s, payload, ad := new(encryption.Scratch), from(1, 1024), from(3, 28)
	buf := make([]byte, 0, len(payload)+encryption.TagBytes)
	offset := int64(0)
	if n := testing.AllocsPerRun(100, func() {
		offset += 1024
		c, err := seal.SealRecord(s, buf, offset, payload, ad)
		if err != nil {
			t.Error(err)
		}
		if _, err = open.OpenRecord(s, c[:0], offset, c, ad); err != nil {
			t.Error(err)
		}
		if _, err = open.OpenRecord(s, c[:0], offset, c, ad); err == nil {
			t.Error("no error")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestWipedFileKey(t *testing.T) {
	seal, open := newFileKey(t)
	var s encryption.Scratch
	c := must[[]byte](t)(seal.SealRecord(&s, nil, 0, []byte("payload"), nil))
	for _, f := range []*encryption.FileKey{seal, open, new(encryption.FileKey)} {
		f.Wipe()
		_, err := f.SealRecord(&s, nil, 8, nil, nil)
		wantErr(t, err, encryption.ErrWiped)
		_, err = f.OpenRecord(&s, nil, 0, c, nil)
		wantErr(t, err, encryption.ErrWiped)
		wantErr(t, f.EncryptTo(new(bytes.Buffer), nil, nil), encryption.ErrWiped)
		_, err = f.Decrypt(c, nil)
		wantErr(t, err, encryption.ErrWiped)
	}
}

// One goroutine seals and others open, with one key.
func TestConcurrent(t *testing.T) {
	k := newDirectoryKey(t)
	f, _, err := k.NewFileKey(rand.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := must[[]byte](t)(f.SealRecord(new(encryption.Scratch), nil, 0, []byte("payload"), nil))
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			var s encryption.Scratch
			for range 200 {
				if _, err := f.OpenRecord(&s, nil, 0, first, nil); err != nil {
					t.Error(err)
				}
				if _, _, err := k.NewFileKey(rand.Reader, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for offset := range int64(200) {
		if _, err := f.SealRecord(new(encryption.Scratch), nil, offset+1, nil, nil); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

func BenchmarkSealRecord1K(b *testing.B) {
	for _, size := range []int{16, 32} {
		b.Run(fmt.Sprintf("AES-%d", size*8), func(b *testing.B) {
			f, s, c := benchmarkKey(b, size)
			payload, ad, offset := from(1, 1024), from(3, 28), int64(1)
			for b.Loop() {
				c, _ = f.SealRecord(s, c[:0], offset, payload, ad)
				offset++
			}
		})
	}
}

func BenchmarkOpenRecord1K(b *testing.B) {
	for _, size := range []int{16, 32} {
		b.Run(fmt.Sprintf("AES-%d", size*8), func(b *testing.B) {
			f, s, buf := benchmarkKey(b, size)
			ad := from(3, 28)
			c := must[[]byte](b)(f.SealRecord(s, nil, 0, from(1, 1024), ad))
			for b.Loop() {
				if _, err := f.OpenRecord(s, buf, 0, c, ad); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchmarkKey(b *testing.B, size int) (*encryption.FileKey, *encryption.Scratch, []byte) {
	k := must[*encryption.DirectoryKey](b)(encryption.NewDirectoryKey(rand.Reader, logID, size))
	f, _, err := k.NewFileKey(rand.Reader, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(1024)
	b.ReportAllocs()
	return f, new(encryption.Scratch), make([]byte, 0, 1024+encryption.TagBytes)
}
