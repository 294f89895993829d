// Package archive is the form of a backup: a tar stream of the parts of files in
// use, and a manifest, the last member, that vouches for every byte of it.
//
// It knows nothing of logs. A member's name is that of the file it is a part of,
// and the offset in it: 00003.wal@1048576. The manifest's name holds the SHA-256
// of its content, which holds one of all that comes before the manifest; what
// follows it is determined by it. So no byte can change unnoticed.
package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/seed-2fef92ad/raftwal/encryption"
)

// Version of the form that this package writes, and the newest it reads.
const Version = 1

// Errors of reading.
var (
	// ErrDamaged: the backup was cut short, damaged, or is none.
	ErrDamaged = errors.New("the backup is damaged or cut short")
	// ErrVersion: a newer version wrote the backup.
	ErrVersion = errors.New("the backup was written by a newer version")
)

// Manifest says what a backup holds. It is part of the backup, and all that
// BackupSince needs of it. As JSON it can be kept apart.
type Manifest struct {
	Version   int       `json:"version"`
	Created   time.Time `json:"created"` // the moment whose log this is
	LogID     string    `json:"log_id"`  // 16 hexadecimal digits
	RaftID    uint64    `json:"raft_id"`
	GroupID   uint64    `json:"group_id"`
	Encrypted bool      `json:"encrypted"`

	Checkpoint uint64     `json:"checkpoint"`
	First      uint64     `json:"first"` // entries; Last is First-1 if there are none
	Last       uint64     `json:"last"`
	HardState  *HardState `json:"hard_state,omitempty"` // nil: none was saved
	Snapshot   Position   `json:"snapshot"`             // index 0: none

	// Parent is the Hash of the manifest that this increment builds on; empty in a
	// full backup.
	Parent string `json:"parent,omitempty"`
	Files  []File `json:"files"`
	// PlainFiles is how many files of an encrypted log are from before it was, and are
	// not encrypted: but for checksums, nothing vouched for what they held.
	PlainFiles int `json:"plain_files,omitempty"`
	// Stream is the SHA-256 of the backup up to the manifest, where each part is
	// replaced by its own SHA-256, so that nothing is hashed twice.
	Stream string `json:"stream"`
	// MAC, of an encrypted log, is that of the rest of the manifest, with Stream in it, under
	// the log's key, in hexadecimal digits.
	MAC string `json:"mac,omitempty"`
}

// HardState is raft's. Commit lies between the snapshot and Last.
type HardState struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

// Position names an entry.
type Position struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// File is a file of the log.
type File struct {
	Name  string `json:"name"`
	Size  int64  `json:"size"` // bytes; what no range holds is zero
	First uint64 `json:"first,omitempty"`
	Last  uint64 `json:"last,omitempty"` // live entries; 0 and 0 if there are none

	// Header is the SHA-256 of the part that tells the file from others of its name;
	// empty if there is none.
	Header string  `json:"header,omitempty"`
	Head   []Range `json:"head,omitempty"` // what can be written anew in the life of the file
	Data   []Range `json:"data,omitempty"` // what is only appended to

	// Based says that the parent has the file, and this backup only what is new of it.
	Based  bool  `json:"based,omitempty"`
	Stored int64 `json:"stored"` // bytes of it in this backup
}

// Range is a range of bytes of a file.
type Range struct {
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// Hash returns the SHA-256 of the manifest, in hexadecimal digits: the name by
// which an increment calls its parent.
func (m *Manifest) Hash() string {
	b, err := m.encode()
	if err != nil {
		return "" // no value of a Manifest leads here; and no parent is named so
	}
	return digest(b)
}

// Authentic reports whether the MAC is that of this manifest.
func (m *Manifest) Authentic(auth *encryption.Authenticator) bool {
	mac, err := hex.DecodeString(m.MAC)
	if err != nil {
		return false
	}
	signed, err := m.signed()
	return err == nil && auth.Verify(mac, encryption.Manifest, signed)
}

func (m *Manifest) sign(auth *encryption.Authenticator) error {
	signed, err := m.signed()
	if err == nil {
		m.MAC = hex.EncodeToString(auth.Sum(nil, encryption.Manifest, signed))
	}
	return err
}

// signed returns what the MAC covers: all but itself.
func (m *Manifest) signed() ([]byte, error) {
	c := *m
	c.MAC = ""
	return c.encode()
}

// Incremental reports whether the backup builds on another one.
func (m *Manifest) Incremental() bool { return m.Parent != "" }

// Find returns the file with the given name; nil if there is none.
func (m *Manifest) Find(name string) *File {
	for k := range m.Files {
		if m.Files[k].Name == name {
			return &m.Files[k]
		}
	}
	return nil
}

// Stored returns how many bytes of files this backup has.
func (m *Manifest) Stored() (n int64) {
	for _, f := range m.Files {
		n += f.Stored
	}
	return n
}

func (m *Manifest) encode() ([]byte, error) { return json.MarshalIndent(m, "", " ") }

// DecodeManifest reads the JSON of a manifest. ErrVersion, ErrDamaged.
func DecodeManifest(b []byte) (m Manifest, err error) {
	var v struct{ Version int }
	if err := json.Unmarshal(b, &v); err != nil {
		return m, fmt.Errorf("%w: the manifest cannot be read: %w", ErrDamaged, err)
	}
	if v.Version != Version {
		return m, fmt.Errorf("%w (form %d; this one reads %d)", ErrVersion, v.Version, Version)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return m, fmt.Errorf("%w: the manifest cannot be read: %w", ErrDamaged, err)
	}
	return m, m.check()
}

var fileName = regexp.MustCompile(`^` + fileNames + `$`)

// IsFileName reports whether a file of a log can have this name.
func IsFileName(name string) bool { return fileName.MatchString(name) }

// WorkDirectory is the name of the directory in which a restore makes a log, inside of the one
// that is to hold it. Where it is and wal.meta is not, a restore is under way, or did not end.
const WorkDirectory = ".restoring"

// fileNames are those of the files of a log: none of them is a path.
const fileNames = `([0-9]{5,}\.wal|[0-9a-f]{16}-[0-9a-f]{16}\.snap|wal\.meta)`

// check makes sure that the files and ranges can be what they say.
func (m *Manifest) check() error {
	for _, f := range m.Files {
		ok := fileName.MatchString(f.Name) && f.Size >= 0
		for _, r := range slices.Concat(f.Head, f.Data) {
			ok = ok && r.Offset >= 0 && r.Bytes >= 0 && r.Bytes <= f.Size-r.Offset
		}
		if !ok {
			return fmt.Errorf("%w: the manifest has a file %q that no log can have", ErrDamaged, f.Name)
		}
	}
	return nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
