package dgraph

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path/filepath"

	"github.com/seed-2fef92ad/raftwal/cmd/mmapwal/internal/transfer"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"google.golang.org/protobuf/encoding/protowire"
)

// KEYREGISTRY is a file of Badger, Dgraph's database. It holds the data keys,
// encrypted with the master key (AES-CTR). All integers are big-endian.
//
//	at  size  field
//	 0    16  IV of the sanity text
//	16    12  sanity text, encrypted: it tells a wrong master key
//	28     -  data keys, one after another:
//	       4  length
//	       4  CRC-32C of the rest
//	       -  protobuf: 1 number, 2 data key (encrypted), 3 its IV, 4 time of creation
const (
	registryName = "KEYREGISTRY"
	sanityText   = "Hello Badger"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// keyring holds the data keys by number. nil: no master key was given.
type keyring map[uint64]cipher.Block

// readKeys reads dir's KEYREGISTRY with the master key.
func readKeys(dir string, master []byte) (keyring, error) {
	path := filepath.Join(dir, registryName)
	p, err := transfer.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w: it has no %s: leave out the key", dir, ErrNotEncrypted, registryName)
	}
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(master)
	if err != nil {
		return nil, fmt.Errorf("the key of Dgraph: %w", err)
	}
	const head = aes.BlockSize + len(sanityText)
	if len(p) < head {
		return nil, corrupt.At(path, int64(len(p)), "the file is cut short")
	}
	if string(xor(block, p[:aes.BlockSize], p[aes.BlockSize:head])) != sanityText {
		return nil, fmt.Errorf("%s: %w", path, ErrWrongKey)
	}
	keys := make(keyring)
	for at := head; at < len(p); {
		n, err := keys.add(block, p[at:])
		if err != nil {
			return nil, corrupt.At(path, int64(at), "a data key cannot be read: %v", err)
		}
		at += n
	}
	return keys, nil
}

// add takes the data key that p begins with and returns its length.
func (k keyring) add(master cipher.Block, p []byte) (int, error) {
	if len(p) < 8 || int64(order.Uint32(p)) > int64(len(p)-8) {
		return 0, errors.New("it is cut short")
	}
	n := 8 + int(order.Uint32(p))
	if crc32.Checksum(p[8:n], castagnoli) != order.Uint32(p[4:]) {
		return 0, errors.New("its checksum does not match")
	}
	number, key, iv, err := decodeKey(p[8:n])
	if err != nil {
		return 0, err
	}
	if len(iv) != aes.BlockSize {
		return 0, fmt.Errorf("its IV has %d bytes", len(iv))
	}
	k[number], err = aes.NewCipher(xor(master, iv, key))
	return n, err
}

func decodeKey(p []byte) (number uint64, key, iv []byte, err error) {
	for len(p) > 0 {
		field, kind, n := protowire.ConsumeTag(p)
		if n < 0 {
			return 0, nil, nil, protowire.ParseError(n)
		}
		p = p[n:]
		switch {
		case field == 1 && kind == protowire.VarintType:
			number, n = protowire.ConsumeVarint(p)
		case field == 2 && kind == protowire.BytesType:
			key, n = protowire.ConsumeBytes(p)
		case field == 3 && kind == protowire.BytesType:
			iv, n = protowire.ConsumeBytes(p)
		default:
			n = protowire.ConsumeFieldValue(field, kind, p)
		}
		if n < 0 {
			return 0, nil, nil, protowire.ParseError(n)
		}
		p = p[n:]
	}
	return number, key, iv, nil
}

// xor encrypts or decrypts: in CTR mode that is the same.
func xor(block cipher.Block, iv, p []byte) []byte {
	out := make([]byte, len(p))
	cipher.NewCTR(block, iv).XORKeyStream(out, p)
	return out
}
