package backup

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/archive"
	"github.com/seed-2fef92ad/raftwal/metafile"
)

// What a restore writes, reads and computes is bounded by what the backups hold, and not by
// what their manifests claim: anybody can make their hashes right.

// largest returns the size in bytes that a file of that name has at most; -1: any.
func largest(name string) int64 {
	if _, ok := entryfile.ParseName(name); ok {
		return entryfile.SizeFor(entryfile.MaxDataBytes)
	}
	if name == metafile.Name {
		return metafile.Size
	}
	return -1
}

// fits reports whether a part can be one of a file with that name, behind those before it.
func fits(name string, part archive.Range, before []archive.Range) bool {
	limit := largest(name)
	if limit < 0 { // a snapshot file has no holes
		limit = part.Bytes
		for _, p := range before {
			limit += p.Bytes
		}
	}
	return part.Offset >= 0 && part.Bytes >= 0 && part.Bytes <= limit && part.Offset <= limit-part.Bytes
}

func filesOf(m *archive.Manifest) map[string]*archive.File {
	files := make(map[string]*archive.File, len(m.Files))
	for k := range m.Files {
		files[m.Files[k].Name] = &m.Files[k]
	}
	return files
}

// plausible makes sure that each byte that m speaks of was in the backup, or in those before
// it, whose files are old; and the other way round.
func (r *restore) plausible(m *archive.Manifest, old map[string]*archive.File) error {
	files := filesOf(m)
	if len(files) != len(m.Files) {
		return fmt.Errorf("%w: the manifest has two files of one name", ErrDamaged)
	}
	for name := range r.parts {
		if files[name] == nil {
			return fmt.Errorf("%w: %s is not in the manifest", ErrDamaged, name)
		}
	}
	for k := range m.Files {
		f := &m.Files[k]
		if f.Based && old[f.Name] == nil {
			return fmt.Errorf("%w: the backup before it does not have %s", ErrChain, f.Name)
		}
		if !plausibleFile(f, old[f.Name], r.parts[f.Name]) {
			return fmt.Errorf("%w: what the manifest says of %s, %d bytes long, is not what the backup holds", ErrDamaged, f.Name, f.Size)
		}
	}
	return nil
}

func plausibleFile(f, old *archive.File, parts []archive.Range) bool {
	there := make(map[archive.Range]bool) // without hashes
	add := func(ranges []archive.Range) {
		for _, r := range ranges {
			there[archive.Range{Offset: r.Offset, Bytes: r.Bytes}] = true
		}
	}
	add(parts)
	if f.Based {
		add(old.Head)
		add(old.Data)
	}
	claims := slices.Concat(f.Head, f.Data)
	slices.SortFunc(claims, func(a, b archive.Range) int { return cmp.Compare(a.Offset, b.Offset) })
	end, bytes := int64(0), int64(0)
	claimed := make(map[archive.Range]bool, len(claims))
	for _, c := range claims {
		c.SHA256 = ""
		if c.Offset < end || !there[c] {
			return false
		}
		end, bytes, claimed[c] = c.Offset+c.Bytes, bytes+c.Bytes, true
	}
	for _, p := range parts {
		if !claimed[p] {
			return false
		}
	}
	if _, hasHoles := entryfile.ParseName(f.Name); hasHoles {
		return f.Size >= end && f.Size <= largest(f.Name)
	}
	return f.Size == bytes
}
