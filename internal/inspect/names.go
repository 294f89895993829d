package inspect

import (
	"cmp"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"golang.org/x/sys/unix"
)

// Other is a file of the directory that is no entry file.
type Other struct {
	Name     string `json:"name"`
	Role     Role   `json:"role"`
	Size     int64  `json:"size"`
	Reserved int64  `json:"reserved"` // bytes of the blocks it has; -1: not known
}

// Role is what a file is to the log.
type Role string

// The roles.
const (
	RoleLive      Role = "live"      // entry file that counts
	RoleDead      Role = "dead"      // entry file that compaction has done with
	RoleNext      Role = "next"      // entry file made ahead, without a record
	RoleTorn      Role = "torn"      // entry file behind the end of a log that was not closed
	RoleSpare     Role = "spare"     // entry file to be used again
	RoleMeta      Role = "meta"      // wal.meta
	RoleSnapshot  Role = "snapshot"  // file of the present snapshot
	RoleTemporary Role = "temporary" // of a creation that is under way, or was interrupted
	RoleLeftover  Role = "leftover"  // snapshot file that wal.meta does not name
	RoleSetAside  Role = "set aside" // by KeepValidPrefix
	RoleUnknown   Role = "unknown"
)

var (
	snapshotPattern  = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{16}\.snap$`)
	sparePattern     = regexp.MustCompile(`^[0-9]{5,}\` + entryfile.SpareSuffix + `$`)
	temporaryPattern = regexp.MustCompile(`^([0-9a-f]{16}-[0-9a-f]{16}\.snap(\.[0-9]+)?|[0-9]{5,}\.wal)\.tmp$`)
)

// sortNames says what each name of the directory stands for.
func (l *Log) sortNames(infos []vfs.Info) {
	names := make(map[uint64]string)
	for _, info := range infos {
		number, isEntryFile := entryfile.ParseName(info.Name)
		if !isEntryFile || info.IsDir {
			l.addOther(info)
			continue
		}
		if other, twice := names[number]; twice {
			l.add(Problem{Severity: Damage, Kind: KindName, File: info.Name,
				What: fmt.Sprintf("%s and %s are two names for one file number", other, info.Name),
				Heal: "find out which is the right one, and move the other away"})
		} else if info.Name != entryfile.Name(number) {
			l.add(Problem{Severity: Damage, Kind: KindName, File: info.Name,
				What: fmt.Sprintf("not the name of an entry file: number %d would be %s", number, entryfile.Name(number)),
				Heal: "rename it if it belongs to the log, else move it away"})
		}
		names[number] = info.Name
		f := &File{Name: info.Name, Number: number, Role: RoleLive, Size: info.Size, Reserved: l.reserved(info.Name)}
		if number < l.meta.FirstFile {
			f.Role = RoleDead
			l.add(Problem{Severity: Note, Kind: KindLeftover, File: f.Name,
				What: fmt.Sprintf("compaction is done with the file: number %d is the first that counts", l.meta.FirstFile), Heal: healOpen})
		}
		l.Files = append(l.Files, f)
	}
	slices.SortFunc(l.Files, func(a, b *File) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Name, b.Name))
	})
}

func (l *Log) addOther(info vfs.Info) {
	if info.Name == "lost+found" {
		return
	}
	o := Other{Name: info.Name, Size: info.Size, Reserved: l.reserved(info.Name), Role: l.roleOf(info)}
	l.Others = append(l.Others, o)
	p := Problem{Severity: Note, File: o.Name}
	switch o.Role {
	case RoleTemporary:
		p.Kind, p.What, p.Heal = KindLeftover, "a creation is under way, or was interrupted", healOpen
	case RoleLeftover:
		p.Kind, p.What, p.Heal = KindLeftover, "wal.meta names another snapshot, or none in a file", healOpen
	case RoleSetAside:
		p.Kind, p.What = KindSetAside, "put aside by KeepValidPrefix; it is no part of the log"
		p.Heal = "remove it when what it holds is not needed any more"
	case RoleUnknown:
		p.Kind, p.What, p.Heal = KindUnknown, "no file of this log", "nothing to do: the log does not touch it"
		if _, is := entryfile.ParseName(o.Name); is {
			p.What, p.Heal = "a directory under the name of an entry file", "move it away: the log cannot make the file of that name"
		}
	default:
		return
	}
	l.add(p)
}

func (l *Log) roleOf(info vfs.Info) Role {
	name := info.Name
	switch {
	case info.IsDir:
		return RoleUnknown
	case name == metafile.Name:
		return RoleMeta
	case strings.HasSuffix(name, ".corrupt"):
		return RoleSetAside
	case name == metafile.TemporaryName || temporaryPattern.MatchString(name):
		return RoleTemporary
	case sparePattern.MatchString(name):
		return RoleSpare
	case !snapshotPattern.MatchString(name):
		return RoleUnknown
	case l.Meta == nil || l.meta.SnapshotInFile && name == metafile.SnapshotName(l.meta.Snapshot):
		return RoleSnapshot
	}
	return RoleLeftover
}

// reserved returns how many bytes of blocks a file has; -1 if that is not known.
func (l *Log) reserved(name string) int64 {
	var stat unix.Stat_t
	if l.fsys != vfs.OS() || unix.Stat(filepath.Join(l.Dir, name), &stat) != nil {
		return -1
	}
	const unit = 512 // of st_blocks, whatever the file system's block size
	return stat.Blocks * unit
}
