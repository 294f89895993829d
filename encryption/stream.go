package encryption

import "io"

// A stream is data in chunks of 1 MiB, the last one shorter or as long, and each
// followed by its tag. No data is one chunk of no bytes.
const chunkBytes = 1 << 20

// StreamBytes returns the size in bytes of the stream of n bytes of data. n is
// from 0 to 1<<62.
func StreamBytes(n int64) int64 {
	chunks := 1 + max(0, n-1)/chunkBytes
	return n + chunks*TagBytes
}

// EncryptTo writes the stream of data to w, one Write per chunk, bound to ad. It
// works once per key, even if w fails: then ErrReuse, as with a key that comes
// from UnwrapFileKey. It takes 1 MiB of memory.
func (f *FileKey) EncryptTo(w io.Writer, data, ad []byte) error {
	switch {
	case f.aead == nil:
		return ErrWiped
	case !f.fresh || f.streamed:
		return ErrReuse
	}
	f.streamed = true
	var s Scratch
	chunk := make([]byte, 0, min(len(data), chunkBytes)+TagBytes)
	for number := uint64(0); ; number++ {
		n, last := cut(len(data), chunkBytes)
		chunk = f.aead.Seal(chunk[:0], s.nonce(domainStream, last, number), data[:n], ad)
		if _, err := w.Write(chunk); err != nil {
			return err
		}
		if last == 1 {
			return nil
		}
		data = data[n:]
	}
}

// Decrypt returns the data of a stream that EncryptTo wrote with the same ad, in
// place: it starts where stream starts. If any of it was changed, cut off, added
// or moved it returns ErrTampered, and stream is overwritten with zeros.
func (f *FileKey) Decrypt(stream, ad []byte) ([]byte, error) {
	if f.aead == nil {
		return nil, ErrWiped
	}
	var s Scratch
	size := 0
	for number, rest := uint64(0), stream; ; number++ {
		n, last := cut(len(rest), chunkBytes+TagBytes)
		plain, err := open(f.aead, rest[:0], s.nonce(domainStream, last, number), rest[:n], ad)
		if err != nil {
			clear(stream)
			return nil, err
		}
		size += copy(stream[size:], plain)
		if last == 1 {
			return stream[:size], nil
		}
		rest = rest[n:]
	}
}

// cut returns the size of the next chunk if there are size bytes, and 1 if it is
// the last one.
func cut(size, chunk int) (n int, last byte) {
	if size <= chunk {
		return size, 1
	}
	return chunk, 0
}
