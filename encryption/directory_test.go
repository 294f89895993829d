package encryption_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
)

func TestKeyLengths(t *testing.T) {
	for size := -1; size <= 65; size++ {
		_, err := encryption.NewDirectoryKey(rand.Reader, logID, size)
		if size == 16 || size == 24 || size == 32 {
			if err != nil {
				t.Errorf("directory key of %d bytes: %v", size, err)
			}
			roundTrip(t, size)
			continue
		}
		wantErr(t, err, encryption.ErrKeyLength)
		if size < 0 {
			continue
		}
		w, err := encryption.NewKeyWrapper(make([]byte, size))
		wantErr(t, err, encryption.ErrKeyLength)
		if w != nil || !strings.Contains(err.Error(), fmt.Sprintf("16, 24 or 32 bytes, not %d", size)) {
			t.Errorf("wrapper %v, error %q", w, err)
		}
	}
}

// roundTrip goes through the hierarchy with keys of the given size.
func roundTrip(t *testing.T, size int) {
	t.Helper()
	master := from(1, size)
	w := must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(master))
	clear(master) // w has its own
	k := must[*encryption.DirectoryKey](t)(encryption.NewDirectoryKey(rand.Reader, logID, size))
	wrapped := must[[]byte](t)(k.Wrap(w))
	if want := size + encryption.SealedOverhead; len(wrapped) != want {
		t.Errorf("wrapped to %d bytes, want %d", len(wrapped), want)
	}
	w = must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(from(1, size)))
	same := must[*encryption.DirectoryKey](t)(encryption.UnwrapDirectoryKey(w, wrapped, logID))
	wantBytes(t, "directory key", same.KeyBytes(), k.KeyBytes())

	sealed := must[[]byte](t)(k.Seal(rand.Reader, []byte("secret"), []byte("ad")))
	wantBytes(t, "secret", must[[]byte](t)(same.Open(sealed, []byte("ad"))), []byte("secret"))

	f, wrappedKey, err := k.NewFileKey(rand.Reader, []byte("file 1"))
	if err != nil || len(wrappedKey) != size+encryption.SealedOverhead {
		t.Fatalf("file key of %d bytes, error %v", len(wrappedKey), err)
	}
	g := must[*encryption.FileKey](t)(same.UnwrapFileKey(wrappedKey, []byte("file 1")))
	var s encryption.Scratch
	record := must[[]byte](t)(f.SealRecord(&s, nil, 8, []byte("payload"), []byte("header")))
	wantBytes(t, "record", must[[]byte](t)(g.OpenRecord(&s, nil, 8, record, []byte("header"))), []byte("payload"))
}

// wantWrongKey: it is a wrong key, and no alarm.
func wantWrongKey(t *testing.T, err error) {
	t.Helper()
	wantErr(t, err, encryption.ErrWrongKey)
	if errors.Is(err, encryption.ErrTampered) {
		t.Errorf("%v is ErrTampered, too", err)
	}
}

// TestUnwrapErrors: a key wrapper that says that its key is another one is told from one that
// fails.
func TestUnwrapErrors(t *testing.T) {
	for _, said := range []error{encryption.ErrTampered, encryption.ErrWrongKey, fmt.Errorf("key 7: %w", encryption.ErrTampered),
		errors.Join(encryption.ErrWrongKey, encryption.ErrTampered)} {
		_, err := encryption.UnwrapDirectoryKey(&kms{decrypt: returns(nil, said)}, from(1, 60), logID)
		wantWrongKey(t, err)
	}
	errKMS := errors.New("KMS is down")
	for _, c := range []struct {
		w    *kms
		want error
	}{
		{&kms{decrypt: returns(nil, errKMS)}, errKMS},
		{&kms{decrypt: returns(from(1, 31), nil)}, encryption.ErrKeyLength},
	} {
		_, err := encryption.UnwrapDirectoryKey(c.w, from(1, 60), logID)
		wantErr(t, err, c.want)
		if errors.Is(err, encryption.ErrWrongKey) || errors.Is(err, encryption.ErrTampered) {
			t.Errorf("%v is a wrong key, too", err)
		}
	}
}

func TestWrongMasterKey(t *testing.T) {
	k := newDirectoryKey(t)
	w := must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(from(1, 16)))
	wrapped := must[[]byte](t)(k.Wrap(w))
	other := must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(from(2, 16)))
	_, err := encryption.UnwrapDirectoryKey(other, wrapped, logID)
	wantWrongKey(t, err)
	_, err = encryption.UnwrapDirectoryKey(w, wrapped, logID+1)
	wantErr(t, err, encryption.ErrWrongKey)
	flips(wrapped, func(bad []byte) {
		_, err := encryption.UnwrapDirectoryKey(w, bad, logID)
		wantWrongKey(t, err)
	})
}

// Wrapping by the master key twice draws two nonces.
func TestWrapTwice(t *testing.T) {
	k := newDirectoryKey(t)
	w := must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(from(1, 32)))
	a, b := must[[]byte](t)(k.Wrap(w)), must[[]byte](t)(k.Wrap(w))
	if bytes.Equal(a[:encryption.NonceBytes], b[:encryption.NonceBytes]) {
		t.Error("the same nonce twice")
	}
}

// kms is a KeyWrapper made of functions.
type kms struct {
	encrypt, decrypt func(p []byte) ([]byte, error)
	plaintext        []byte // what Encrypt was given
	result           []byte // what Decrypt returned
}

func (s *kms) Encrypt(p, _ []byte) ([]byte, error) { s.plaintext = p; return s.encrypt(p) }
func (s *kms) Decrypt(p, _ []byte) (_ []byte, err error) {
	s.result, err = s.decrypt(p)
	return s.result, err
}

func same(p []byte) ([]byte, error) { return p, nil }

func returns(b []byte, err error) func([]byte) ([]byte, error) {
	return func([]byte) ([]byte, error) { return b, err }
}

func TestOddKeyWrappers(t *testing.T) {
	errKMS := errors.New("KMS is down")
	inPlace := func(p []byte) ([]byte, error) {
		for i := range p {
			p[i] ^= 0x5a
		}
		return p, nil
	}
	for _, c := range []struct {
		name             string
		encrypt, decrypt func([]byte) ([]byte, error)
		want             error // nil with a message: any error that says so
		message          string
	}{
		{"fails to wrap", returns(nil, errKMS), same, errKMS, ""},
		{"fails to unwrap", same, returns(nil, errKMS), errKMS, ""},
		{"wraps to nil", returns(nil, nil), same, nil, "has 0 bytes, 1 to 448 are allowed"},
		{"wraps to too much", returns(make([]byte, 449), nil), same, nil, "has 449 bytes, 1 to 448 are allowed"},
		{"unwraps to nil", same, returns(nil, nil), encryption.ErrKeyLength, ""},
		{"unwraps to too little", same, returns(from(1, 31), nil), encryption.ErrKeyLength, ""},
		{"unwraps to too much", same, returns(from(1, 33), nil), encryption.ErrKeyLength, ""},
		{"unwraps to zeros", same, returns(make([]byte, 32), nil), encryption.ErrZeros, ""},
		{"unwraps to another key", same, returns(from(1, 32), nil), encryption.ErrWrongKey, "another key"},
		{"wraps the same to the same", same, same, nil, ""},
		{"works in place", inPlace, inPlace, nil, ""},
		{"wraps to the most", func(p []byte) ([]byte, error) { return append(p, make([]byte, 448-32)...), nil },
			func(p []byte) ([]byte, error) { return p[:32], nil }, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newDirectoryKey(t)
			key := bytes.Clone(k.KeyBytes())
			w := &kms{encrypt: c.encrypt, decrypt: c.decrypt}
			wrapped, err := k.Wrap(w)
			wantBytes(t, "the key after Wrap", k.KeyBytes(), key)
			if !bytes.Equal(w.plaintext, make([]byte, 32)) || !bytes.Equal(w.result, make([]byte, len(w.result))) {
				t.Error("key bytes were left behind")
			}
			if c.want == nil && c.message == "" {
				again := must[*encryption.DirectoryKey](t)(encryption.UnwrapDirectoryKey(w, wrapped, logID))
				wantBytes(t, "the key unwrapped", again.KeyBytes(), key)
				wantBytes(t, "and again", must[[]byte](t)(k.Wrap(w)), wrapped)
				return
			}
			if wrapped != nil || err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.message) {
				t.Errorf("Wrap: %d bytes, error %v; want %v, %q", len(wrapped), err, c.want, c.message)
			}
		})
	}
}

func TestBadRandomSource(t *testing.T) {
	_, err := encryption.NewDirectoryKey(failing(31), logID, 32)
	wantErr(t, err, errSource)
	_, err = encryption.NewDirectoryKey(zeros{}, logID, 32)
	wantErr(t, err, encryption.ErrZeros)
	k := newDirectoryKey(t)
	_, err = k.Seal(failing(11), nil, nil)
	wantErr(t, err, errSource)
	_, _, err = k.NewFileKey(failing(31), nil)
	wantErr(t, err, errSource)
	_, _, err = k.NewFileKey(failing(32+11), nil)
	wantErr(t, err, errSource)
	_, _, err = k.NewFileKey(zeros{}, nil)
	wantErr(t, err, encryption.ErrZeros)
}

func TestSealIsStandardGCM(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		k := must[*encryption.DirectoryKey](t)(encryption.NewDirectoryKey(new(counting), logID, size))
		key, nonce := from(1, size), from(1, 12)
		sealed := must[[]byte](t)(k.Seal(new(counting), []byte("secret"), []byte("ad")))
		derived := stdDerive(t, key, "raftwal v1 small secrets", size)
		wantBytes(t, "sealed", sealed, append(nonce, stdSeal(t, derived, nonce, []byte("secret"), []byte("ad"))...))

		// The source yields the data key first, then the nonce.
		_, wrapped, err := k.NewFileKey(new(counting), []byte("ad"))
		if err != nil {
			t.Fatal(err)
		}
		nonce = from(byte(size)+1, 12)
		derived = stdDerive(t, key, "raftwal v1 file keys", size)
		wantBytes(t, "file key", wrapped, append(nonce, stdSeal(t, derived, nonce, from(1, size), []byte("ad"))...))

		w := must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(from(7, size)))
		directoryAD := append([]byte("raftwal v1 directory key"), from(1, 8)...) // logID
		own := append(bytes.Clone(nonce), stdSeal(t, from(7, size), nonce, key, directoryAD)...)
		same := must[*encryption.DirectoryKey](t)(encryption.UnwrapDirectoryKey(w, own, logID))
		wantBytes(t, "directory key", same.KeyBytes(), key)
	}
}

func TestSealNotices(t *testing.T) {
	k, ad := newDirectoryKey(t), []byte("ad")
	sealed := must[[]byte](t)(k.Seal(rand.Reader, []byte("secret"), ad))
	flips(sealed, func(bad []byte) {
		_, err := k.Open(bad, ad)
		wantErr(t, err, encryption.ErrTampered)
	})
	flips(ad, func(bad []byte) {
		_, err := k.Open(sealed, bad)
		wantErr(t, err, encryption.ErrTampered)
	})
	_, err := newDirectoryKey(t).Open(sealed, ad)
	wantErr(t, err, encryption.ErrTampered)
	_, err = k.UnwrapFileKey(sealed, ad) // sealed for another use
	wantErr(t, err, encryption.ErrTampered)
	empty := must[[]byte](t)(k.Seal(rand.Reader, nil, nil))
	if p, err := k.Open(empty, nil); err != nil || len(p) != 0 || len(empty) != encryption.SealedOverhead {
		t.Errorf("an empty secret: %d bytes, then %d, error %v", len(empty), len(p), err)
	}
}

func TestFileKeyNotices(t *testing.T) {
	k, ad := newDirectoryKey(t), []byte("file 1")
	_, wrapped, err := k.NewFileKey(rand.Reader, ad)
	if err != nil {
		t.Fatal(err)
	}
	flips(wrapped, func(bad []byte) {
		_, err := k.UnwrapFileKey(bad, ad)
		wantErr(t, err, encryption.ErrTampered)
	})
	flips(ad, func(bad []byte) {
		_, err := k.UnwrapFileKey(wrapped, bad)
		wantErr(t, err, encryption.ErrTampered)
	})
	_, err = newDirectoryKey(t).UnwrapFileKey(wrapped, ad)
	wantErr(t, err, encryption.ErrTampered)
	_, err = k.Open(wrapped, ad) // wrapped for another use
	wantErr(t, err, encryption.ErrTampered)
}

func TestWipedDirectoryKey(t *testing.T) {
	k := newDirectoryKey(t)
	key := k.KeyBytes()
	w := must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(from(1, 32)))
	k.Wipe()
	k.Wipe() // does no harm
	wantBytes(t, "key", key, make([]byte, 32))
	_, err := k.Wrap(w)
	wantErr(t, err, encryption.ErrWiped)
	_, err = k.Seal(rand.Reader, []byte("secret"), nil)
	wantErr(t, err, encryption.ErrWiped)
	_, err = k.Open(make([]byte, 64), nil)
	wantErr(t, err, encryption.ErrWiped)
	_, _, err = k.NewFileKey(rand.Reader, nil)
	wantErr(t, err, encryption.ErrWiped)
	_, err = k.UnwrapFileKey(make([]byte, 60), nil)
	wantErr(t, err, encryption.ErrWiped)
	_, err = k.NewAuthenticator()
	wantErr(t, err, encryption.ErrWiped)
	_, err = new(encryption.DirectoryKey).Seal(rand.Reader, nil, nil)
	wantErr(t, err, encryption.ErrWiped)
}

// 64 GiB of address space: nobody touches it.
func TestTooLong(t *testing.T) {
	size := int64(1) << 36
	if int64(int(size)) != size {
		t.Skip("where an int has 32 bits nothing is as long as that")
	}
	long, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = syscall.Munmap(long) }()
	_, err = newDirectoryKey(t).Seal(rand.Reader, long, nil)
	wantErr(t, err, encryption.ErrTooLong)
	f, _ := newFileKey(t)
	_, err = f.SealRecord(new(encryption.Scratch), nil, 0, long, nil)
	wantErr(t, err, encryption.ErrTooLong)
}

// Nothing that is read from a disk makes anything panic.
func TestRandomInput(t *testing.T) {
	k := newDirectoryKey(t)
	w := must[encryption.KeyWrapper](t)(encryption.NewKeyWrapper(from(1, 32)))
	_, f := newFileKey(t)
	a := must[*encryption.Authenticator](t)(k.NewAuthenticator())
	var s encryption.Scratch
	for n := range 200 {
		b := make([]byte, n)
		_, _ = io.ReadFull(rand.Reader, b)
		_, err := encryption.UnwrapDirectoryKey(w, b, uint64(n))
		wantWrongKey(t, err)
		_, err = k.Open(b, b)
		wantErr(t, err, encryption.ErrTampered)
		_, err = k.UnwrapFileKey(b, b)
		wantErr(t, err, encryption.ErrTampered)
		_, err = f.OpenRecord(&s, nil, int64(n), b, b)
		wantErr(t, err, encryption.ErrTampered)
		_, err = f.OpenRecord(&s, nil, -int64(n)-1, b, b)
		wantErr(t, err, encryption.ErrTampered)
		if a.Verify(b, encryption.MetaPage, b, b) {
			t.Error("a MAC out of nothing")
		}
		_, err = f.Decrypt(b, nil)
		wantErr(t, err, encryption.ErrTampered)
	}
}
