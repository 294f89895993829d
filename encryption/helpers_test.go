package encryption_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
)

const logID = 0x0102030405060708

// counting yields 1, 2, 3 ...: a random source whose bytes are known.
type counting struct{ n byte }

func (c *counting) Read(p []byte) (int, error) {
	for i := range p {
		c.n++
		p[i] = c.n
	}
	return len(p), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

var errSource = errors.New("no random bytes")

// failing yields n bytes, then errSource.
func failing(n int64) io.Reader {
	return io.MultiReader(io.LimitReader(rand.Reader, n), errorReader{})
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errSource }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func wantBytes(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes %.80x, want %d bytes %.80x", what, len(got), got, len(want), want)
	}
}

func newDirectoryKey(t testing.TB) *encryption.DirectoryKey {
	t.Helper()
	return must[*encryption.DirectoryKey](t)(encryption.NewDirectoryKey(rand.Reader, logID, 32))
}

// newFileKey returns a new data key, and the same one unwrapped.
func newFileKey(t testing.TB) (seal, open *encryption.FileKey) {
	t.Helper()
	k := newDirectoryKey(t)
	seal, wrapped, err := k.NewFileKey(rand.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	return seal, must[*encryption.FileKey](t)(k.UnwrapFileKey(wrapped, nil))
}

// flips calls try with b, each bit of it flipped once, and with each shorter and
// one longer version of it.
func flips(b []byte, try func(bad []byte)) {
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		try(bad)
	}
	for n := range len(b) {
		try(bytes.Clone(b[:n]))
	}
	try(append(bytes.Clone(b), 0))
}

// stdSeal is AES-GCM by the standard library alone.
func stdSeal(t testing.TB, key, nonce, plaintext, ad []byte) []byte {
	t.Helper()
	block := must[cipher.Block](t)(aes.NewCipher(key))
	return must[cipher.AEAD](t)(cipher.NewGCM(block)).Seal(nil, nonce, plaintext, ad)
}

func stdDerive(t testing.TB, key []byte, label string, size int) []byte {
	t.Helper()
	return must[[]byte](t)(hkdf.Key(sha256.New, key, nil, label, size))
}

// from returns n bytes that count up from first.
func from(first byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}
