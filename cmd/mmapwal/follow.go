package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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
	if err := d.all(cmd, dir); err != nil {
		return ended(ctx, err)
	}
	for seen := uint32(0); d.next <= d.flags.to; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := stamp(dir)
		if err != nil {
			return err
		}
		if now == seen {
			continue
		}
		seen = now
		if err := d.catchUp(ctx, dir); err != nil {
			return ended(ctx, err)
		}
	}
	return nil
}

// ended: an interrupt is how --follow ends.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// catchUp prints what is new.
func (d *dumper) catchUp(ctx context.Context, dir string) error {
	l, err := d.flags.lookAt(ctx, dir, false, nil)
	if err != nil {
		return err
	}
	if err := d.goBack(ctx, l); err != nil {
		return err
	}
	if d.next != 0 && d.next < l.First {
		if _, err := fmt.Fprintf(d.errs, "entries %d to %d were compacted before they could be printed\n", d.next, l.First-1); err != nil {
			return err
		}
		d.next = l.First
	}
	return d.printAll(ctx, dir, l)
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

// stamp changes whenever the log does: it covers wal.meta, the names, and the slots
// of the last two files, since the last one may be made ahead.
func stamp(dir string) (uint32, error) {
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
	slices.Sort(files)
	names := []string{metafile.Name}
	for _, n := range files[max(len(files)-2, 0):] {
		names = append(names, entryfile.Name(n))
	}
	for _, name := range names {
		part, err := sumOf(filepath.Join(dir, name), entryfile.MaxSlots*entryfile.SlotBytes)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		_, _ = fmt.Fprintln(sum, part)
	}
	return sum.Sum32(), nil
}

// sumOf returns a checksum of the first n bytes of a file.
func sumOf(name string, n int64) (uint32, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := crc32.NewIEEE()
	_, err = io.Copy(sum, io.LimitReader(f, n))
	return sum.Sum32(), err
}
