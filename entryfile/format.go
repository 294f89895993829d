package entryfile

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/seed-2fef92ad/raftwal/internal/page"
)

// An entry file. All integers are big-endian.
//
//	at              size     what
//	0               960,000  30,000 slots: where each live entry is
//	1 MiB - 8 KiB     4,096  header page
//	1 MiB - 4 KiB     4,096  header page: the two are written in turn, the newest valid one counts
//	1 MiB                 -  records, 8-byte aligned, one after another
//
// The records are the log; the slots are an index that can be rebuilt from them, and that is
// written when the file is sealed or closed.
const (
	SlotBytes = 32
	MaxSlots  = 30_000
	DataStart = 1 << 20 // bytes

	headerPage0 = DataStart - 2*page.Size
	headerPage1 = DataStart - 1*page.Size

	RecordHeaderBytes = 32
	recordAlign       = 8
)

// The compiler checks that the parts do not overlap: a negative array length
// does not build.
var _ [headerPage0 - MaxSlots*SlotBytes]byte

// Limits of an entry file's data region and of an entry, in bytes.
const (
	MinDataBytes     = 1 << 20
	DefaultDataBytes = 64 << 20
	MaxDataBytes     = 16 << 30
	MaxEntryBytes    = 1 << 30
)

// Suffix ends the names of entry files, TemporarySuffix those of files whose
// creation is not complete.
const (
	Suffix          = ".wal"
	TemporarySuffix = Suffix + ".tmp"
)

// Name returns the base name of the entry file with the given number.
func Name(number uint64) string { return fmt.Sprintf("%05d%s", number, Suffix) }

var namePattern = regexp.MustCompile(`^([0-9]+)\.wal$`)

// ParseName returns the number that a base name stands for. The name is
// canonical if it equals Name(number); 1.wal, say, is not.
func ParseName(name string) (number uint64, ok bool) {
	match := namePattern.FindStringSubmatch(name)
	if match == nil {
		return 0, false
	}
	number, err := strconv.ParseUint(match[1], 10, 64)
	return number, err == nil && number > 0
}

// RecordBytes returns what an entry with a payload of n bytes takes in the data
// region.
func RecordBytes(n int) int64 {
	return (RecordHeaderBytes + int64(n) + recordAlign - 1) &^ (recordAlign - 1)
}
