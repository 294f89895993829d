package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/metafile"
	"github.com/spf13/cobra"
)

// followEvery is how often --follow looks for new entries.
const followEvery = 200 * time.Millisecond

// follow prints what the log holds, and then what is new, until it is interrupted.
func (d *dumper) follow(cmd *cobra.Command, dir string) error {
	ctx := cmd.Context()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	if err := d.all(cmd, dir); err != nil && !overtaken(dir, err) {
		return ended(ctx, err)
	}
	var l *inspect.Log
	for seen := uint32(0); d.next <= d.flags.to; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := stamp(dir, l)
		if err != nil {
			return err
		}
		if now == seen {
			continue
		}
		seen = now
		if l, err = d.catchUp(ctx, dir); overtaken(dir, err) {
			l, seen = nil, 0
			continue
		}
		if err != nil {
			return ended(ctx, err)
		}
		if slices.ContainsFunc(l.Problems, func(p inspect.Problem) bool { return p.Kind == inspect.KindTorn }) {
			seen = 0 // the rest of a record that is half stored may not show in the stamp
		}
	}
	return nil
}

// overtaken reports whether a look at a log failed because its owner has removed a file
// meanwhile: then it is looked at again.
func overtaken(dir string, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	_, err = os.Stat(filepath.Join(dir, metafile.Name))
	return err == nil
}

// ended: an interrupt is how --follow ends.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// catchUp prints what is new, and returns the log in which it is.
func (d *dumper) catchUp(ctx context.Context, dir string) (*inspect.Log, error) {
	l, err := d.flags.lookAt(ctx, dir, false, nil)
	if err != nil {
		return nil, err
	}
	if err := d.goBack(ctx, l); err != nil {
		return nil, err
	}
	if d.next != 0 && d.next < l.First {
		if _, err := fmt.Fprintf(d.errs, "entries %d to %d were compacted before they could be printed\n", d.next, l.First-1); err != nil {
			return nil, err
		}
		d.next = l.First
	}
	return l, d.printAll(ctx, dir, l)
}

// goBack puts d.next where entries that were seen have been replaced.
func (d *dumper) goBack(ctx context.Context, l *inspect.Log) error {
	if len(d.terms) == 0 || d.next <= max(l.First, d.terms[0].first) {
		return nil
	}
	same, err := d.agreeFrom(ctx, l, d.next-1) // most often nothing was replaced
	if err == nil && same < d.next {
		same, err = d.agreeFrom(ctx, l, max(l.First, d.terms[0].first))
	}
	if err != nil || same == d.next {
		return err
	}
	d.next = same
	for n := len(d.terms); n > 0 && d.terms[n-1].first >= same; n-- {
		d.terms = d.terms[:n-1]
	}
	_, err = fmt.Fprintf(d.errs, "entries from %d on were replaced\n", same)
	return err
}

// agreeFrom returns up to which index, not included, the entries from the given one
// on have the terms that were seen.
func (d *dumper) agreeFrom(ctx context.Context, l *inspect.Log, from uint64) (uint64, error) {
	same := from
	err := l.Each(ctx, from, d.next-1, func(e inspect.Entry) error {
		if e.Err != nil || e.Term != d.termAt(e.Index) {
			return errEnough
		}
		same = e.Index + 1
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return same, err
}

// termAt returns the term of an entry that was seen.
func (d *dumper) termAt(i uint64) (term uint64) {
	for _, r := range d.terms {
		if r.first <= i {
			term = r.term
		}
	}
	return term
}

// stamp changes when something is added to l, which may be nil: it covers wal.meta, the names,
// and the header of what follows the records of the last two files, since the last one may be
// made ahead.
func stamp(dir string, l *inspect.Log) (uint32, error) {
	sum := crc32.NewIEEE()
	var files []uint64
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		_, _ = io.WriteString(sum, e.Name()+"\n") // a hash does not fail
		if number, ok := entryfile.ParseName(e.Name()); ok {
			files = append(files, number)
		}
	}
	if err := sumOf(sum, filepath.Join(dir, metafile.Name), 0, metafile.Size); err != nil {
		return 0, err
	}
	slices.Sort(files)
	for _, n := range files[max(len(files)-2, 0):] {
		name := entryfile.Name(n)
		if err := sumOf(sum, filepath.Join(dir, name), endOf(l, name), entryfile.RecordHeaderBytes); err != nil {
			return 0, err
		}
	}
	return sum.Sum32(), nil
}

// endOf returns where the records of a file of l end, which may be nil.
func endOf(l *inspect.Log, name string) int64 {
	if l != nil {
		for _, f := range l.Files {
			if f.Name == name {
				return max(f.End, entryfile.DataStart)
			}
		}
	}
	return entryfile.DataStart
}

// sumOf adds n bytes of a file, from the offset off on, to sum; of a file that is gone, none.
func sumOf(sum io.Writer, name string, off, n int64) error {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(sum, io.NewSectionReader(f, off, n))
	return err
}
