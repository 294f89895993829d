package damage

import (
	"fmt"
	"strings"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
)

const (
	metaName = "wal.meta"
	header0  = entryfile.DataStart - 2*pageSize
	header1  = entryfile.DataStart - 1*pageSize
	snapHead = 48                                // bytes of the header of a snapshot file
	searched = entryfile.DataStart + 16*pageSize // where the records of these logs end, at the latest
	beyond   = 64                                // bytes behind what is in use that are damaged, too
)

// region is a range of bytes of a file that are of one kind.
type region struct {
	file     string
	from, to int64
	kind     string
	inUse    bool
	entry    uint64 // of a record
	// overwrites: the record replaces entries of earlier ones of its file.
	overwrites bool
}

// record is one record of an entry file.
type record struct {
	at, end     int64 // with the padding
	payload     int64
	index, term uint64
}

// recordsOf returns the whole records of an entry file, which is not damaged.
// There may be holes where some were punched out.
func recordsOf(p []byte) (all []record) {
	salt := page.Order.Uint32(p[header0+56:])
	for at := int64(entryfile.DataStart); at+entryfile.RecordHeaderBytes <= int64(len(p)) && at < searched; {
		body, n := at+entryfile.RecordHeaderBytes, int64(page.Order.Uint32(p[at+28:]))
		if page.Order.Uint64(p[at+16:]) == 0 || body+n > int64(len(p)) || page.Sum(salt, p[at+4:body+n]) != page.Order.Uint32(p[at:]) {
			at += 8
			continue
		}
		r := record{at: at, end: at + entryfile.RecordBytes(int(n)), payload: n, index: page.Order.Uint64(p[at+16:]), term: page.Order.Uint64(p[at+8:])}
		all = append(all, r)
		at = r.end
	}
	return all
}

func onlyZeros(p []byte) bool { return len(strings.Trim(string(p), "\x00")) == 0 }

// regionsOf returns what the files of a moment are made of.
func regionsOf(m Moment) (all []region) {
	for _, name := range m.Image.Names() {
		p := m.Image[name].Bytes()
		switch {
		case name == metaName:
			all = append(all, metaRegions(p)...)
		case strings.HasSuffix(name, ".snap"):
			all = append(all, region{file: name, from: 0, to: snapHead, kind: "snapshot file: header", inUse: true},
				region{file: name, from: snapHead, to: int64(len(p)), kind: "snapshot file: data", inUse: true})
		default:
			all = append(all, entryRegions(name, p, m.State)...)
		}
	}
	return all
}

func metaRegions(p []byte) (all []region) {
	for k := range int64(4) {
		at := k * pageSize
		used := int64(page.Order.Uint32(p[at+128:]))
		kind := fmt.Sprintf("wal.meta: page %d", k)
		all = append(all, region{file: metaName, from: at, to: at + used, kind: kind, inUse: true},
			region{file: metaName, from: at + used, to: at + pageSize, kind: "wal.meta: behind what is in use"})
	}
	return all
}

func entryRegions(name string, p []byte, s *State) []region {
	slots := int64(0)
	for page.Order.Uint64(p[slots+8:]) != 0 {
		slots += entryfile.SlotBytes
	}
	all := []region{
		{file: name, from: 0, to: slots, kind: "slots in use", inUse: true},
		{file: name, from: slots, to: slots + beyond, kind: "slots not in use"},
		{file: name, from: entryfile.MaxSlots*entryfile.SlotBytes - beyond, to: entryfile.MaxSlots * entryfile.SlotBytes, kind: "slots not in use"},
		{file: name, from: header0 - beyond, to: header0, kind: "between slots and headers"},
		headerRegion(name, p, header0, header1), headerRegion(name, p, header1, header0),
	}
	end := int64(entryfile.DataStart)
	last := uint64(0)
	for _, r := range recordsOf(p) {
		parts := recordRegions(name, r, s)
		for k := range parts {
			parts[k].overwrites = r.index <= last
		}
		all = append(all, parts...)
		end, last = r.end, r.index
	}
	return append(all, region{file: name, from: end, to: end + beyond, kind: "behind the records"})
}

// headerRegion tells the header page that counts from the other one.
func headerRegion(name string, p []byte, at, other int64) region {
	r := region{file: name, from: at, to: at + pageSize, kind: "header page: the older one", inUse: true}
	switch {
	case onlyZeros(p[at : at+pageSize]):
		r.kind, r.inUse = "header page: not written yet", false
	case page.Order.Uint64(p[at+16:]) > page.Order.Uint64(p[other+16:]):
		r.kind = "header page: the one that counts"
	}
	return r
}

func recordRegions(name string, r record, s *State) []region {
	kind := "record overwritten: "
	if r.index <= s.Base[0] {
		kind = "record compacted: "
	} else if live := s.Entry(r.index); live.GetTerm() == r.term {
		kind = "record: "
	}
	body := r.at + entryfile.RecordHeaderBytes
	parts := []region{
		{from: r.at, to: body, kind: kind + "header"},
		{from: body, to: body + r.payload, kind: kind + "payload"},
		{from: body + r.payload, to: r.end, kind: kind + "padding"},
	}
	for k := range parts {
		parts[k].file, parts[k].entry, parts[k].inUse = name, r.index, true
	}
	return parts
}
