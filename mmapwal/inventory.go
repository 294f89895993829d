package mmapwal

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/internal/corrupt"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// corruptSuffix ends the names of files that KeepValidPrefix put aside.
const corruptSuffix = ".corrupt"

// The names of files that an Open may remove: nobody else's look like these.
var (
	sparePattern     = regexp.MustCompile(`^([0-9]{5,})\.spare$`)
	snapshotPattern  = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{16}\.snap$`)
	temporaryPattern = regexp.MustCompile(`^([0-9a-f]{16}-[0-9a-f]{16}\.snap(\.[0-9]+)?|[0-9]{5,}\.wal)\.tmp$`)
)

// inventory is what a directory holds, by what the names say.
type inventory struct {
	dir       string
	numbers   []uint64 // of the entry files, rising
	snapshots []string
	temporary []string             // of creations that were interrupted
	spares    []string             // entry files to be used again
	setAside  []string             // .corrupt
	unknown   []string             // of another program
	foreign   uint64               // highest number in the names of those that look like this log's
	modified  map[string]time.Time // by name; when it was last written to
	infos     []vfs.Info
}

// takeInventory lists dir. An entry file under a name that this package does not
// give is an error: which of two files counts cannot be guessed.
func takeInventory(fsys vfs.Files, dir string) (*inventory, error) {
	infos, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	inv := &inventory{dir: dir, modified: make(map[string]time.Time, len(infos)), infos: infos}
	names := make(map[uint64]string)
	for _, info := range infos {
		name := info.Name
		inv.modified[name] = info.Modified
		number, isEntryFile := entryfile.ParseName(name)
		switch {
		case name == metafile.Name || name == "lost+found":
		case info.IsDir:
			inv.unknown = append(inv.unknown, name)
		case isEntryFile:
			if other, twice := names[number]; twice {
				return nil, corrupt.At(filepath.Join(dir, name), 0, "%s and %s are two names for one file number: "+
					"find out which is the right one, and move the other away", other, name)
			}
			names[number] = name
			inv.numbers = append(inv.numbers, number)
		case strings.HasSuffix(name, corruptSuffix):
			inv.setAside = append(inv.setAside, name)
		case name == metafile.TemporaryName || temporaryPattern.MatchString(name):
			inv.temporary = append(inv.temporary, name)
		case sparePattern.MatchString(name):
			inv.spares = append(inv.spares, name)
		case snapshotPattern.MatchString(name):
			inv.snapshots = append(inv.snapshots, name)
		default:
			inv.unknown = append(inv.unknown, name)
		}
	}
	slices.Sort(inv.numbers)
	for number, name := range names {
		if name != entryfile.Name(number) {
			return nil, corrupt.At(filepath.Join(dir, name), 0, "not the name of an entry file: number %d would be %s", number, entryfile.Name(number))
		}
	}
	return inv, nil
}

// mayCreate says whether a new log may be made in a directory without wal.meta.
func (inv *inventory) mayCreate() error {
	if inv.restoring() {
		return fmt.Errorf("%w: %w", ErrForeign, errRestoring)
	}
	if len(inv.numbers) > 0 {
		return corrupt.At(filepath.Join(inv.dir, metafile.Name), 0, missingMeta)
	}
	remains := slices.Concat(inv.snapshots, inv.setAside, inv.spares)
	if others := slices.Concat(inv.unknown, remains); len(remains) > 0 {
		return fmt.Errorf("%w: it has no wal.meta, but %s, as of a log that was lost: if that was this node's, restore a backup of the whole directory, "+
			"or add the node to its group anew, under another id; a new log, which could vote twice, is for a new node, in an empty directory",
			ErrForeign, strings.Join(others, ", "))
	}
	others := inv.unknown
	if len(others) > 0 {
		return fmt.Errorf("%w: it has no wal.meta, but %s; use an empty directory", ErrForeign, strings.Join(others, ", "))
	}
	return nil
}

// missingMeta does not advise to move the entry files away: the node would be a blank one.
const missingMeta = "the file is missing beside entry files, and with it term and vote: restore a backup of the whole directory, " +
	"or add the node to its group anew, under another id; with a new log here it could vote twice"

var errRestoring = errors.New("a restore into it is under way, or was interrupted: run it again")

// restoring: there is no log yet, or only a part of one.
func (inv *inventory) restoring() bool { return slices.Contains(inv.unknown, archive.WorkDirectory) }

// leftovers returns the names of interrupted creations, and of snapshot files
// that m does not name.
func (inv *inventory) leftovers(m metafile.Meta) []string {
	names := slices.Clone(inv.temporary)
	for _, name := range inv.snapshots {
		if !m.SnapshotInFile || name != metafile.SnapshotName(m.Snapshot) {
			names = append(names, name)
		}
	}
	return names
}

// deadFiles returns the names of entry files that m does not need.
func (inv *inventory) deadFiles(m metafile.Meta) (names []string) {
	for _, n := range inv.numbers {
		if n < m.FirstFile {
			names = append(names, entryfile.Name(n))
		}
	}
	return names
}

// numberPattern finds the number in the name of what is, or was, an entry file.
var numberPattern = regexp.MustCompile(`^([0-9]{5,})\.`)

// isPlain reports whether what is, or was, an entry file of m's log under that name is not
// encrypted, though the log is. What cannot be told counts.
func isPlain(m metafile.Meta, name string) bool {
	if !m.Encrypted || m.EncryptedFrom == 0 {
		return false
	}
	match := numberPattern.FindStringSubmatch(name)
	if match == nil {
		return true
	}
	n, err := strconv.ParseUint(match[1], 10, 64)
	return err != nil || n < m.EncryptedFrom
}

// plainAside counts what was put aside, more of it among it, and is not encrypted.
func (inv *inventory) plainAside(m metafile.Meta, more []string) (n int) {
	for _, name := range slices.Concat(inv.setAside, more) {
		if isPlain(m, filepath.Base(name)) {
			n++
		}
	}
	return n
}

// plainDead counts what the next Open for writing removes, and is not encrypted.
func (inv *inventory) plainDead(m metafile.Meta) (n int) {
	for _, name := range slices.Concat(inv.deadFiles(m), inv.spares, inv.leftovers(m)) {
		if isPlain(m, name) {
			n++
		}
	}
	return n
}

// lastSpare returns the highest number that a spare file has in its name.
func (inv *inventory) lastSpare() (last uint64) {
	for _, name := range inv.spares {
		n, _ := strconv.ParseUint(sparePattern.FindStringSubmatch(name)[1], 10, 64)
		last = max(last, n)
	}
	return last
}

// live returns the numbers of the entry files that count.
func (inv *inventory) live(m metafile.Meta) []uint64 {
	first, _ := slices.BinarySearch(inv.numbers, m.FirstFile)
	return inv.numbers[first:]
}
