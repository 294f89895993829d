package damage

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/mmapwal"
)

// keepPrefix opens what FailClosed refused because of entry files with
// KeepValidPrefix.
func (l *large) keepPrefix(h harm) {
	if slices.ContainsFunc(h.files, func(name string) bool { return !strings.HasSuffix(name, entryfile.Suffix) }) {
		return
	}
	l.disk.Load(h.img)
	var told bytes.Buffer
	opts := l.v.log.Options()
	opts.Recovery = mmapwal.KeepValidPrefix
	opts.Logger = slog.New(slog.NewTextHandler(&told, nil))
	d, err := Open(l.disk, 11, opts)
	if err != nil {
		l.kept[l.refused(h, err)]++
		return
	}
	what, wrong := l.judgePrefix(h, d, told.String())
	l.kept[what]++
	if wrong != "" {
		l.t.Errorf("%s, %s, KeepValidPrefix: %s", h.kind, h.what, wrong)
	}
}

// refused: KeepValidPrefix is about entry files only.
func (l *large) refused(h harm, err error) string {
	var e *mmapwal.CorruptError
	if !errors.As(err, &e) || strings.HasSuffix(e.File, entryfile.Suffix) {
		l.t.Errorf("%s, %s, KeepValidPrefix: %v", h.kind, h.what, err)
	}
	if l.disk.Changes > 0 && h.img[metaName] != nil {
		l.t.Errorf("%s, %s, KeepValidPrefix: refused with %v, but something has changed", h.kind, h.what, err)
	}
	return "refused because of " + strings.TrimLeft(filepath.Ext(e.File), ".")
}

func (l *large) judgePrefix(h harm, d *mmapwal.DiskStorage, told string) (what, wrong string) {
	r, err := Read(d)
	if err != nil {
		return "", err.Error()
	}
	if len(r.Missing) > 0 {
		return "", fmt.Sprintf("entries %v cannot be read: %v", r.Missing, r.Errs)
	}
	what, wrong = l.prefixOf(r)
	if wrong == "" {
		wrong = l.allKept(h, d.Stats().Recovery.SetAside, told)
	}
	if wrong == "" && r.SnapErr == nil {
		wrong, _ = usable(l.v.log, l.disk, d, r)
	}
	return what, wrong
}

// prefixOf says of what the entries are a prefix.
func (l *large) prefixOf(r *Reading) (what, wrong string) {
	if isPrefix(r, l.v.State) {
		return "prefix of the right data", ""
	}
	for _, m := range slices.Backward(l.v.log.Moments) {
		if isPrefix(r, m.State) {
			return "prefix of an earlier time", ""
		}
	}
	if len(r.Entries) == 0 {
		return "no entries", ""
	}
	return "", fmt.Sprintf("entries %d to %d are no prefix of what there ever was", r.Base[0]+1, r.Last())
}

func isPrefix(r *Reading, s *State) bool {
	for _, e := range r.Entries {
		i := e.GetIndex()
		if i > s.Last() {
			return false
		}
		if i > s.Base[0] && !SameEntry(e, s.Entry(i)) && !isCleared(e, s.Entry(i)) {
			return false
		}
	}
	return true
}

// allKept: what was damaged is in a .corrupt file, or still in the file itself.
func (l *large) allKept(h harm, aside []string, told string) string {
	now := l.disk.Image()
	for _, path := range aside {
		name := filepath.Base(path)
		if now[name] == nil || !strings.HasSuffix(name, ".corrupt") || !strings.Contains(told, name) {
			return fmt.Sprintf("%s was put aside, and is not there or not told", name)
		}
		original := name[:strings.Index(name, entryfile.Suffix)] + entryfile.Suffix
		if !now[name].Equal(h.img[original]) {
			return fmt.Sprintf("%s is not what %s was", name, original)
		}
	}
	for _, name := range h.files {
		if old := h.img[name]; old != nil && strings.HasSuffix(name, entryfile.Suffix) && !keptSomewhere(name, old, now) {
			return fmt.Sprintf("%s is gone; put aside: %v", name, aside)
		}
	}
	return ""
}

// keptSomewhere: the data of an entry file is there, whatever became of its header
// and its slots, which are written anew.
func keptSomewhere(name string, old *Content, now Image) bool {
	for other, c := range now {
		if strings.HasPrefix(other, name) && c.Equal(old) {
			return true
		}
	}
	if now[name] == nil {
		return old.Size <= entryfile.DataStart || onlyZeros(old.Bytes()[entryfile.DataStart:])
	}
	a, b := old.Bytes(), now[name].Bytes()
	return len(a) == len(b) && bytes.Equal(a[entryfile.DataStart:], b[entryfile.DataStart:])
}
