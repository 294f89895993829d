package encryption_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
)

func newAuthenticator(t testing.TB, k *encryption.DirectoryKey) *encryption.Authenticator {
	t.Helper()
	return must[*encryption.Authenticator](t)(k.NewAuthenticator())
}

func TestSumIsStandardHMAC(t *testing.T) {
	k := must[*encryption.DirectoryKey](t)(encryption.NewDirectoryKey(new(counting), logID, 16))
	a := newAuthenticator(t, k)
	h := hmac.New(sha256.New, stdDerive(t, from(1, 16), "raftwal v1 pages", 32))
	h.Write([]byte{1})
	for _, part := range []string{"one", "", "three"} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write([]byte(part))
	}
	want := h.Sum([]byte("before"))
	for range 3 { // the second and third time from a saved state
		got := a.Sum([]byte("before"), encryption.MetaPage, []byte("one"), nil, []byte("three"))
		wantBytes(t, "MAC", got, want)
	}
}

func TestVerifyNotices(t *testing.T) {
	k := newDirectoryKey(t)
	a, page, more := newAuthenticator(t, k), from(1, 60), from(9, 20)
	mac := a.Sum(nil, encryption.MetaPage, page, more)
	k.Wipe()
	if !a.Verify(mac, encryption.MetaPage, page, more) {
		t.Fatal("not valid")
	}
	flips(mac, func(bad []byte) {
		if a.Verify(bad, encryption.MetaPage, page, more) {
			t.Errorf("valid: MAC %x", bad)
		}
	})
	flips(page, func(bad []byte) {
		if a.Verify(mac, encryption.MetaPage, bad, more) {
			t.Errorf("valid: page %x", bad)
		}
	})
	whole := append(bytes.Clone(page), more...)
	for name, valid := range map[string]bool{
		"another role":      a.Verify(mac, encryption.HeaderPage, page, more),
		"other parts":       a.Verify(mac, encryption.MetaPage, whole[:59], whole[59:]),
		"one part":          a.Verify(mac, encryption.MetaPage, whole),
		"a part more":       a.Verify(mac, encryption.MetaPage, page, more, nil),
		"no parts":          a.Verify(mac, encryption.MetaPage),
		"another directory": newAuthenticator(t, newDirectoryKey(t)).Verify(mac, encryption.MetaPage, page, more),
	} {
		if valid {
			t.Errorf("valid with %s", name)
		}
	}
}

func TestPageAllocations(t *testing.T) {
	a := newAuthenticator(t, newDirectoryKey(t))
	page, mac := from(1, 1200), make([]byte, 0, encryption.MACBytes)
	if n := testing.AllocsPerRun(100, func() {
		mac = a.Sum(mac[:0], encryption.HeaderPage, page[:100], page[104:])
		if !a.Verify(mac, encryption.HeaderPage, page[:100], page[104:]) {
			t.Error("not valid")
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func BenchmarkPageMAC1200(b *testing.B) {
	a := newAuthenticator(b, newDirectoryKey(b))
	page, mac := from(1, 1200), make([]byte, 0, encryption.MACBytes)
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		mac = a.Sum(mac[:0], encryption.MetaPage, page)
	}
}
