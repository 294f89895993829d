package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A file of the WAL is a sequence of records, each aligned to 8 bytes:
//
//	at  size
//	 0     8  length, little-endian: bits 0 to 55 count the bytes of the message;
//	          with bit 63, bits 56 to 58 count the bytes of padding
//	 8        walpb.Record, a protobuf message: 1 type, 2 CRC, 3 data
//	          padding to a multiple of 8
//
// The CRC is a rolling CRC-32C over the data of all records up to this one, of
// earlier files, too: that of a crc record, the first of each file, is the sum so
// far. It does not cover the types. Behind the last record there are zeros.
const (
	typeMetadata = 1 // etcdserverpb.Metadata: the first record behind the crc record
	typeEntry    = 2 // raftpb.Entry
	typeState    = 3 // raftpb.HardState
	typeCRC      = 4
	typeSnapshot = 5 // walpb.Snapshot: index, term and conf state

	lengthBytes = 8
	sectorBytes = 512 // what a disk writes whole
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What decode finds instead of a record.
var (
	errEnd    = errors.New("the records end here")
	errBeyond = errors.New("the record reaches beyond the end of the file")
	errLength = errors.New("the length of the record is none that etcd writes")
	errRecord = errors.New("the record cannot be read")
	errSum    = errors.New("the checksum of the record is wrong")
)

// record is a walpb.Record.
type record struct {
	typ  uint64
	crc  uint32
	data []byte // part of the file

	message []byte // all of it, encoded
	end     int    // where the next one starts
}

// decode returns the record at an offset of a file. With an error it has message
// and end if the message is in the file.
func decode(p []byte, at int) (record, error) {
	p = p[at:]
	if len(p) == 0 {
		return record{}, errEnd
	}
	if len(p) < lengthBytes {
		return record{}, errBeyond
	}
	length := binary.LittleEndian.Uint64(p)
	if length == 0 {
		return record{}, errEnd
	}
	n, flags := length&(1<<56-1), length>>56
	pad := -n & 7
	if n == 0 || pad == 0 && flags != 0 || pad != 0 && flags != 0x80|pad {
		return record{}, errLength
	}
	p = p[lengthBytes:]
	if n > uint64(len(p)) {
		return record{}, errBeyond
	}
	r := record{message: p[:n], end: at + lengthBytes + int(n+pad)}
	if n+pad > uint64(len(p)) {
		return r, errBeyond
	}
	return r, r.parse()
}

// parse takes the message apart.
func (r *record) parse() error {
	if err := fields(r.message, r.set); err != nil {
		return err
	}
	if r.typ == typeCRC && r.data != nil {
		return errRecord
	}
	return nil
}

// set takes a field of the message.
func (r *record) set(number protowire.Number, v uint64, data []byte) error {
	switch {
	case number == 1 && data == nil:
		r.typ = v
	case number == 2 && data == nil && v <= math.MaxUint32:
		r.crc = uint32(v)
	case number == 3 && data != nil:
		r.data = data
	default:
		return errRecord
	}
	return nil
}

// sum returns the rolling sum behind the record, from that in front of it.
func (r *record) sum(before uint32) uint32 { return crc32.Update(before, castagnoli, r.data) }

// fields calls visit for each field of a message: with its number, or its bytes,
// which are not nil then.
func fields(p []byte, visit func(number protowire.Number, v uint64, data []byte) error) error {
	for len(p) > 0 {
		number, typ, n := protowire.ConsumeTag(p)
		if n < 0 {
			return errRecord
		}
		p = p[n:]
		var v uint64
		var data []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(p)
		case protowire.BytesType:
			data, n = protowire.ConsumeBytes(p)
		default:
			return errRecord
		}
		if n < 0 {
			return errRecord
		}
		if err := visit(number, v, data); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// unmarshal reads a message of raft's. Fields that it does not have mean that the
// bytes are those of another message.
func unmarshal(p []byte, m proto.Message) error {
	if err := proto.Unmarshal(p, m); err != nil {
		return err
	}
	if unknown := m.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		return fmt.Errorf("%d bytes of it belong to no field", len(unknown))
	}
	return nil
}

// torn reports whether what stands at an offset of the last file, which cause
// says is no record, is what a write leaves that a crash interrupted: a part of
// its sectors, or of the file, is as it was before, zeros or not there. before is
// the rolling sum in front of it.
//
// Like etcd it cannot tell that from damage that zeroed a sector.
func torn(p []byte, at int, r record, cause error, before uint32) bool {
	switch {
	case cause == errEnd:
		return isZero(p[at:sectorEnd(p, at)])
	case cause == errLength: // it is in one sector, and complete
		return false
	case cause == errBeyond && r.message != nil: // some padding is missing
		return true
	case at+lengthBytes < len(p) && isWhole(p[at+lengthBytes:], before): // its length only is wrong
		return false
	case cause == errBeyond:
		return true
	}
	for at, end := at+lengthBytes, at+lengthBytes+len(r.message); at < end; at = sectorEnd(p, at) {
		if isZero(p[at:min(end, sectorEnd(p, at))]) {
			return true
		}
	}
	return false
}

// isWhole reports whether p begins with a whole message, which tells its length
// itself, since the data comes last.
func isWhole(p []byte, before uint32) bool {
	var r record
	err := fields(p, func(number protowire.Number, v uint64, data []byte) error {
		err := r.set(number, v, data)
		if err == nil && number == 3 {
			err = errEnd
		}
		return err
	})
	return err == errEnd && r.sum(before) == r.crc
}

// sectorEnd returns where the sector of an offset ends.
func sectorEnd(p []byte, at int) int { return min(len(p), at-at%sectorBytes+sectorBytes) }

// isZero reports whether there is nothing but zeros.
func isZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
