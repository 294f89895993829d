package mmapwal

import (
	"log/slog"
	"time"

	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/host"
)

// SyncPolicy says when a Save is on the disk.
type SyncPolicy struct {
	mode     syncMode
	entries  int           // of BatchSync
	interval time.Duration // of BatchSync
}

type syncMode uint32 // as stored in wal.meta

const (
	hardSync  syncMode = 0
	batchSync syncMode = 1
	noSync    syncMode = 2
)

var (
	// HardSync, the zero value: what Save returned nil for survives a power cut.
	HardSync = SyncPolicy{mode: hardSync}
	// NoSync: it survives the death of the process, but a power cut may take
	// what was saved since the last Sync, Close, snapshot or compaction.
	NoSync = SyncPolicy{mode: noSync}
)

// BatchSync: Save returns at once, and a power cut may take the last n entries that
// were saved, at most, or those that were saved since the last sync began. That is done
// in the background: when half of n is not on the disk, or an entry has not been for
// the interval. Save waits when more than n are not, or Options.MaxUnsyncedBytes. A
// changed term or vote is on the disk when Save returns, with all before it; so is a
// snapshot. After a power cut, or the death of the process, the commit index may be
// older; entries, term and vote survive the latter. n is at least 1; an interval of 0
// or less is one of 10 ms.
func BatchSync(n int, interval time.Duration) SyncPolicy {
	if interval <= 0 {
		interval = 10 * time.Millisecond
	}
	return SyncPolicy{mode: batchSync, entries: max(n, 1), interval: interval}
}

// RecoveryPolicy says what Open does about promised data that is damaged. A torn
// tail, which was never promised, is dropped under either.
type RecoveryPolicy uint8

const (
	// FailClosed, the zero value: Open fails with a *CorruptError and changes
	// nothing.
	FailClosed RecoveryPolicy = iota
	// KeepValidPrefix: Open reads and checks every record, keeps the entries in
	// front of the first damage, and puts what lies behind aside in files whose
	// names end in .corrupt, which are never deleted; it needs space for copies. It
	// does not help against a lost wal.meta or a missing snapshot file. Where damaged
	// records had replaced earlier ones, those are back: the log can be that of an
	// earlier time. A node that comes back without entries it has acknowledged can break
	// Raft's guarantees: use this only to add the node to its group anew, or when the
	// group is lost anyway.
	KeepValidPrefix
)

// Options of Open. A copy is taken: later changes have no effect. The zero value
// is the default.
type Options struct {
	// Sync is when a Save is on the disk: HardSync, BatchSync or NoSync.
	Sync SyncPolicy

	// Key is the master key: it encrypts the log at rest, with AES-GCM. 16, 24 or
	// 32 bytes. The log keeps no reference to it. A log that is not encrypted
	// becomes so: what is stored from now on; see Stats.PlainFiles for the rest.
	Key []byte
	// KeyWrapper is used instead of a Key: a KMS, or an AEAD of Tink. It is called
	// at Open and by RotateKeyWrapper only.
	KeyWrapper encryption.KeyWrapper
	// RequireEncryption refuses a log that is not encrypted (ErrNotEncrypted), and
	// to make one without a Key or KeyWrapper.
	RequireEncryption bool

	// FileDataSize is how many bytes of records an entry file takes before the
	// next one is begun: 1 MiB to 16 GiB, 0 for the default of 64 MiB. It applies
	// to new files. An entry that is larger gets a file that it fits into.
	FileDataSize int64

	// MaxUnsyncedBytes is how many bytes of records may wait for the disk under
	// HardSync, in SaveAsync, and under BatchSync, before a Save waits for it. 0 means
	// 64 MiB.
	MaxUnsyncedBytes int64

	// CacheSize is how many bytes of the entries that were saved last are kept in
	// memory, as they are, for Entries to return: about that much, twice as much while
	// it is being cleaned. 0 means 256 KiB; negative: none. A log that was just opened
	// has nothing there.
	//
	// On ext4 and xfs, a Save under HardSync of 16 to 512 KiB of records, but not of more
	// than twice CacheSize, goes to the disk around the kernel's page cache, which takes
	// less time. Entries of it that are read when this cache has let go of them come from
	// the disk, once. SaveAsync, and Saves that share a sync, do not do that. The memory in
	// which the largest of them was collected is kept until its file is full.
	CacheSize int64

	// RetainEntries is how many entries below a snapshot CreateSnapshot keeps, so
	// that slow followers need not be sent the snapshot. 0 keeps none. With it, raft has
	// to be told where to start: see InitialState.
	RetainEntries uint64

	// SpareFiles is how many entry files whose entries are dead are kept, at most, to
	// be used again: writing to blocks that were written before costs the disk less.
	// 0 means 2; negative: none.
	SpareFiles int

	// Recovery is what Open does about damage.
	Recovery RecoveryPolicy

	// ReadOnly opens a log without the owner's lock, beside a live owner even,
	// and writes nothing, not even to recover. What it shows is the log as it was
	// at Open. Entries that the owner has dropped since can be raft.ErrCompacted.
	ReadOnly bool

	// MustExist has Open refuse to make a log, or a directory: fs.ErrNotExist. It is for every
	// start of a node but its first: where a log was lost, or its volume is not mounted, a
	// new one would be a node without its vote and entries, which can break Raft's guarantees.
	MustExist bool

	// SlowSync is how long a sync of entries may take before the Logger is told, at
	// most once in 10 seconds: 0 is 1 second, negative is never.
	SlowSync time.Duration

	// Logger is told about what an operator should know: recovery, damage,
	// slow syncs, failed removals; never about a single Save. nil means slog.Default().
	Logger *slog.Logger

	host    host.Host
	wrapper encryption.KeyWrapper // from Key or KeyWrapper; nil: none
	keySize int                   // of a new directory key, in bytes
}

// withDefaults checks o and returns a copy in which nothing is left open.
func (o *Options) withDefaults() (Options, error) {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Sync.mode > noSync {
		return out, invalidf("Options.Sync: %d is no sync policy", out.Sync.mode)
	}
	if out.FileDataSize == 0 {
		out.FileDataSize = entryfile.DefaultDataBytes
	}
	least := int64(entryfile.MinDataBytes)
	if n := out.host.MinFileData; n > 0 {
		least = n
	}
	if out.FileDataSize < least || out.FileDataSize > entryfile.MaxDataBytes {
		return out, invalidf("Options.FileDataSize is %d; it can be 0 or from %d to %d bytes",
			out.FileDataSize, least, int64(entryfile.MaxDataBytes))
	}
	if out.MaxUnsyncedBytes == 0 {
		out.MaxUnsyncedBytes = 64 << 20
	}
	if out.MaxUnsyncedBytes < 0 {
		return out, invalidf("Options.MaxUnsyncedBytes is %d; it can be 0 or more", out.MaxUnsyncedBytes)
	}
	if out.CacheSize == 0 {
		out.CacheSize = 256 << 10
	}
	out.CacheSize = max(out.CacheSize, 0)
	if out.SpareFiles == 0 {
		out.SpareFiles = 2
	}
	out.SpareFiles = max(out.SpareFiles, 0)
	if out.SlowSync == 0 {
		out.SlowSync = time.Second
	}
	if out.Recovery > KeepValidPrefix {
		return out, invalidf("Options.Recovery: %d is no recovery policy", out.Recovery)
	}
	if out.Recovery == KeepValidPrefix && out.ReadOnly {
		return out, invalidf("Options: KeepValidPrefix writes, ReadOnly forbids it; choose one")
	}
	if err := out.setWrapper(); err != nil {
		return out, err
	}
	if out.Logger == nil {
		out.Logger = slog.Default()
	}
	if out.host.FS == nil {
		out.host = host.OS()
	}
	return out, nil
}

// setWrapper makes one thing of Key and KeyWrapper. It does not keep the key.
func (o *Options) setWrapper() (err error) {
	key := o.Key
	o.Key, o.wrapper, o.keySize = nil, o.KeyWrapper, 32
	switch {
	case key != nil && o.KeyWrapper != nil:
		return invalidf("Options: Key and KeyWrapper are both set; choose one")
	case key != nil:
		o.keySize = len(key)
		o.wrapper, err = newWrapper(key)
	case o.KeyWrapper == nil && o.RequireEncryption:
		return invalidf("Options: RequireEncryption without Key or KeyWrapper")
	}
	return err
}
