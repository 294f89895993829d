package entryfile

import (
	"bytes"
	"fmt"
	"sync"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// In an encrypted file the payload of a record is the ciphertext of the entry's
// data and a tag, which vouch for the record's header and place as well. The
// header pages carry MACs, and so, in a sealed file, do the slots. In clear are
// indexes, terms, types and lengths.
//
// secret is what an encrypted file has besides: the key for its records, and the
// means to check its pages. All methods work on nil, for a plain file.
type secret struct {
	wrapped []byte // the data key, as the header holds it
	key     *encryption.FileKey

	mu   sync.Mutex // guards auth: a reader may check the slots while the header is written
	auth *encryption.Authenticator

	scratch encryption.Scratch // of the writer, as is sealed
	sealed  []byte             // a large payload on its way
}

// keptSealed is how much memory for large payloads a file keeps, in bytes.
const keptSealed = 1 << 20

// newSecret makes the data key of a new file.
func newSecret(spec *Spec) (*secret, error) {
	if spec.Keys == nil {
		return nil, nil
	}
	key, wrapped, err := spec.Keys.NewFileKey(spec.Random, keyAD(spec.LogID, spec.Number, spec.Salt))
	if err != nil {
		return nil, err
	}
	auth, err := spec.Keys.NewAuthenticator()
	return &secret{wrapped: wrapped, key: key, auth: auth}, err
}

// openSecret unwraps the data key of a file whose header page p says h.
func openSecret(h *Header, p []byte, keys *encryption.DirectoryKey) (*secret, error) {
	if len(h.WrappedKey) == 0 {
		return nil, nil
	}
	if keys == nil {
		return nil, encryption.ErrKeyRequired
	}
	auth, err := keys.NewAuthenticator()
	if err != nil {
		return nil, err
	}
	if !auth.Verify(p[atMAC:atMAC+encryption.MACBytes], encryption.HeaderPage, signed(p)...) {
		return nil, fmt.Errorf("the header page: %w", encryption.ErrTampered)
	}
	key, err := keys.UnwrapFileKey(h.WrappedKey, keyAD(h.LogID, h.Number, h.Salt))
	if err != nil {
		return nil, fmt.Errorf("the file's key: %w", err)
	}
	return &secret{wrapped: h.WrappedKey, key: key, auth: auth}, nil
}

// keyAD says what file a data key is for.
func keyAD(logID, number uint64, salt uint32) []byte {
	ad := []byte("entry file")
	ad = page.Order.AppendUint64(ad, logID)
	ad = page.Order.AppendUint64(ad, number)
	return page.Order.AppendUint32(ad, salt)
}

// signed returns what the MAC of a header page covers: all but the checksum and
// itself.
func signed(p []byte) [][]byte {
	return [][]byte{p[:atHeaderSum], p[atHeaderSum+4 : atMAC], p[atMAC+encryption.MACBytes : page.Size]}
}

// sign puts the MAC into a header page.
func (s *secret) sign(p []byte) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auth.Sum(p[:atMAC], encryption.HeaderPage, signed(p)...)
}

// slotsMAC returns the MAC of the slots in use.
func (s *secret) slotsMAC(slots []byte) (mac [encryption.MACBytes]byte) {
	if s == nil {
		return mac
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.auth.Sum(mac[:0], encryption.SlotIndex, slots)
	return mac
}

// overhead is how much longer than the data a record's payload is, in bytes.
func (s *secret) overhead() int {
	if s == nil {
		return 0
	}
	return encryption.TagBytes
}

// seal returns the payload for the entry's data in the record at offset at, with
// the encoded header: data itself in a plain file. It uses the room, if large
// enough, and does not allocate but for a payload larger than all before it.
func (s *secret) seal(room []byte, at int64, data, header []byte) ([]byte, error) {
	if s == nil {
		return data, nil
	}
	if n := len(data) + encryption.TagBytes; n > cap(room) {
		if n > cap(s.sealed) {
			s.sealed = make([]byte, 0, n)
		}
		room = s.sealed
	}
	payload, err := s.key.SealRecord(&s.scratch, room[:0], at, data, header[recordSumBytes:])
	if cap(s.sealed) > keptSealed {
		s.sealed = nil
	}
	return payload, err
}

// open returns the data of the record at offset at, decrypted in place.
func (s *secret) open(scratch *encryption.Scratch, at int64, payload, header []byte) ([]byte, error) {
	if s == nil {
		return payload, nil
	}
	return s.key.OpenRecord(scratch, payload[:0], at, payload, header[recordSumBytes:])
}

func (s *secret) wipe() {
	if s != nil {
		s.key.Wipe()
	}
}

// An opener checks records one after another, as a scan does.
type opener struct {
	scratch encryption.Scratch
	buf     []byte
}

// authentic reports whether the whole record r at offset at is what was sealed
// there.
func (f *File) authentic(o *opener, mem []byte, at int64, r *record) error {
	if f.secret == nil {
		return nil
	}
	header := mem[at : at+RecordHeaderBytes]
	o.buf = append(o.buf[:0], mem[at+RecordHeaderBytes:at+RecordHeaderBytes+int64(r.payload)]...)
	if _, err := f.secret.open(&o.scratch, at, o.buf, bytes.Clone(header)); err != nil {
		return f.tampered(r.index, at, err)
	}
	return nil
}

func (f *File) tampered(i uint64, at int64, err error) error {
	return fmt.Errorf("%w (%w)", f.damaged(i, at, "the record's checksum is right, but not its tag: it was forged, or moved"), err)
}

// slotsAuthentic reports whether the slots of a sealed file are those that were
// sealed. It finds out once; who changes them in a file that is open is not
// noticed by this, but by the records, unless they are records of the same file
// that were superseded.
func (f *File) slotsAuthentic(mem []byte) bool {
	if f.secret == nil || f.slotsChecked.Load() {
		return true
	}
	seal := f.sealed()
	slots := mem[:seal.Count*SlotBytes]
	f.await(0, int64(len(slots)))
	ok := f.secret.slotsMAC(slots) == seal.SlotsMAC
	f.slotsChecked.Store(ok)
	return ok
}

// Encrypted reports whether the file is.
func (f *File) Encrypted() bool { return f.secret != nil }

// explainSecret names the file and the header page.
func (f *File) explainSecret(err error) error {
	return fmt.Errorf("%w (%w)", corrupt.At(f.path, f.page, "cannot be decrypted"), err)
}
