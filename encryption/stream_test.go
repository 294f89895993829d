package encryption_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/seed-2fef92ad/raftwal/encryption"
)

const (
	mib   = 1 << 20
	chunk = mib + encryption.TagBytes
)

// pattern returns n bytes, those of one chunk different from those of the next.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + i>>8 + i>>16*31)
	}
	return b
}

// stream returns the stream of data, and a key that opens it.
func stream(t testing.TB, data, ad []byte) ([]byte, *encryption.FileKey) {
	t.Helper()
	seal, open := newFileKey(t)
	var w bytes.Buffer
	if err := seal.EncryptTo(&w, data, ad); err != nil {
		t.Fatal(err)
	}
	return w.Bytes(), open
}

func TestStreamSizes(t *testing.T) {
	for _, n := range []int{0, 1, mib - 1, mib, mib + 1, 2 * mib, 5*mib + 12345} {
		data := pattern(n)
		c, open := stream(t, data, []byte("ad"))
		if int64(len(c)) != encryption.StreamBytes(int64(n)) {
			t.Errorf("%d bytes: stream of %d, want %d", n, len(c), encryption.StreamBytes(int64(n)))
		}
		got := must[[]byte](t)(open.Decrypt(c, []byte("ad")))
		wantBytes(t, "data", got, data)
		if n > 0 && &got[0] != &c[0] {
			t.Errorf("%d bytes: not in place", n)
		}
	}
}

func TestStreamBytes(t *testing.T) {
	for n, want := range map[int64]int64{
		0: 16, 1: 17, mib: mib + 16, mib + 1: mib + 33, 1 << 62: 1<<62 + 1<<46,
	} {
		if got := encryption.StreamBytes(n); got != want {
			t.Errorf("StreamBytes(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestStreamIsStandardGCM(t *testing.T) {
	f, _, err := newDirectoryKey(t).NewFileKey(new(counting), nil)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	data := pattern(mib + 5)
	if err := f.EncryptTo(&got, data, []byte("ad")); err != nil {
		t.Fatal(err)
	}
	want := stdSeal(t, from(1, 32), []byte{0: 2, 11: 0}, data[:mib], []byte("ad"))
	want = append(want, stdSeal(t, from(1, 32), []byte{0: 2, 1: 1, 11: 1}, data[mib:], []byte("ad"))...)
	wantBytes(t, "stream", got.Bytes(), want)
}

func TestStreamNotices(t *testing.T) {
	ad := []byte("ad")
	c, open := stream(t, pattern(3*mib), ad)
	other, _ := stream(t, pattern(3*mib), ad)
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	c0, c1, c2 := c[:chunk], c[chunk:2*chunk], c[2*chunk:]
	for name, bad := range map[string][]byte{
		"nothing":                     nil,
		"the last chunk dropped":      join(c0, c1),
		"two chunks dropped":          join(c0),
		"the first chunk dropped":     join(c1, c2),
		"a chunk dropped":             join(c0, c2),
		"only the last chunk":         join(c2),
		"chunks swapped":              join(c1, c0, c2),
		"the last chunk not last":     join(c0, c2, c1),
		"a chunk repeated":            join(c0, c1, c1, c2),
		"the last chunk repeated":     join(c, c2),
		"a byte more":                 join(c, []byte{0}),
		"a byte less":                 c[:len(c)-1],
		"cut within a chunk":          c[:chunk+100],
		"cut within a tag":            c[:2*chunk-1],
		"an empty chunk more":         join(c, make([]byte, 16)),
		"the tail of another stream":  join(c0, c1, other[2*chunk:]),
		"all of another stream":       other,
		"the first bit of a chunk":    flipped(c, chunk),
		"the last bit of a first tag": flipped(c, chunk-1),
		"the last bit":                flipped(c, len(c)-1),
	} {
		bad = bytes.Clone(bad)
		p, err := open.Decrypt(bad, ad)
		if p != nil || !errors.Is(err, encryption.ErrTampered) {
			t.Errorf("%s: %d bytes, error %v", name, len(p), err)
		}
		if !bytes.Equal(bad, make([]byte, len(bad))) {
			t.Errorf("%s: something was left behind", name)
		}
	}
	_, err := open.Decrypt(bytes.Clone(c), []byte("AD"))
	wantErr(t, err, encryption.ErrTampered)
	wantBytes(t, "data", must[[]byte](t)(open.Decrypt(c, ad)), pattern(3*mib))
}

func flipped(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func TestShortStreamNoticesEachBit(t *testing.T) {
	for n := range 3 {
		c, open := stream(t, pattern(n), nil)
		flips(c, func(bad []byte) {
			_, err := open.Decrypt(bad, nil)
			wantErr(t, err, encryption.ErrTampered)
		})
	}
}

// A record is no chunk, and a chunk no record, under one key and at one place.
func TestDomains(t *testing.T) {
	k := newDirectoryKey(t)
	f, _, err := k.NewFileKey(rand.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	var s encryption.Scratch
	record := must[[]byte](t)(f.SealRecord(&s, nil, 0, []byte("same"), nil))
	var w bytes.Buffer
	if err := f.EncryptTo(&w, []byte("same"), nil); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(record[:4], w.Bytes()[:4]) {
		t.Error("one key stream for both")
	}
	_, err = f.OpenRecord(&s, nil, 0, w.Bytes(), nil)
	wantErr(t, err, encryption.ErrTampered)
	_, err = f.Decrypt(record, nil)
	wantErr(t, err, encryption.ErrTampered)
	wantErr(t, f.EncryptTo(&w, nil, nil), encryption.ErrReuse)
}

// fullDisk takes n writes.
type fullDisk struct{ n int }

var errFull = errors.New("disk full")

func (w *fullDisk) Write(p []byte) (int, error) {
	if w.n--; w.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestStreamWriterFails(t *testing.T) {
	for n := range 3 {
		f, _ := newFileKey(t)
		wantErr(t, f.EncryptTo(&fullDisk{n}, pattern(3*mib), nil), errFull)
		wantErr(t, f.EncryptTo(&fullDisk{9}, pattern(3*mib), nil), encryption.ErrReuse)
	}
}
