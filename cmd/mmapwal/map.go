package main

import (
	"errors"
	"fmt"
	"html"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newMap() *cobra.Command {
	var f lookFlags
	var svg string
	var width int
	cmd := &cobra.Command{
		Use:   "map DIR",
		Short: "Draw what the bytes of a log are taken by",
		Long: `map draws each entry file of the log in DIR as a bar: the records that count, those
that compaction is done with, superseded and cleared ones, torn writes, damage, what
was given back to the disk, what is left of an earlier life of the file (all of a
spare one), and what is free. All bars have the same scale. The first
cell of a bar stands for the slots and header pages in front of the records.

Where a cell stands for bytes of several kinds it shows the most remarkable one:
damage before torn writes, these before records that count, and so on. It is coloured
on a terminal, unless NO_COLOR is set. It reads every byte, as verify does, changes
nothing, and takes no lock. It exits with 1 if there is damage.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.prepare(); err != nil {
				return err
			}
			if width != 0 && width < 40 {
				return fmt.Errorf("--width %d: a picture has at least 40 columns", width)
			}
			if svg != "" && sameDir(filepath.Dir(svg), args[0]) {
				return fmt.Errorf("--svg %s: nothing is written to the directory of a log", svg)
			}
			l, err := f.look(cmd, args[0], true)
			if err != nil {
				return failed(err)
			}
			if svg != "" {
				err = writeSVG(svg, l)
			} else {
				err = newPicture(cmd.OutOrStdout(), width).draw(l)
			}
			if err == nil && l.Damaged() {
				err = fmt.Errorf("%s is damaged; `mmapwal verify` says where", args[0])
			}
			return failed(err)
		},
	}
	f.add(cmd, "")
	cmd.Flags().StringVar(&svg, "svg", "", "write an SVG picture to this file instead")
	cmd.Flags().IntVar(&width, "width", 0, "columns (default those of the terminal, or 100)")
	return cmd
}

// sameDir reports whether two names are of one directory.
func sameDir(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// kindLook is how a kind looks in a picture.
type kindLook struct {
	kind  inspect.Kind
	cell  string // without colours
	ansi  string // of its background
	fill  string // in SVG
	means string
}

// kindLooks says how each kind looks, in the order of the legend.
var kindLooks = []kindLook{
	{inspect.Live, "#", "42", "#2e9e5b", "live"},
	{inspect.Compacted, "c", "44", "#4a7bd0", "compacted"},
	{inspect.Superseded, "s", "46", "#45b5c4", "superseded"},
	{inspect.Cleared, "e", "45", "#a569bd", "cleared"},
	{inspect.Torn, "~", "43", "#e5b93c", "torn"},
	{inspect.Damaged, "!", "41", "#d64541", "damaged"},
	{inspect.Punched, "o", "47", "#c9ced6", "punched"},
	{inspect.Stale, "-", "40", "#9a8f80", "stale"},
	{inspect.Free, ".", "100", "#eceff3", "free"},
}

func lookOf(k inspect.Kind) kindLook {
	n := slices.IndexFunc(kindLooks, func(l kindLook) bool { return l.kind == k })
	return kindLooks[n]
}

// picture draws a log with characters.
type picture struct {
	out    io.Writer
	width  int // columns
	colour bool
}

func newPicture(out io.Writer, width int) *picture {
	p := &picture{out: out, width: 100}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.colour = os.Getenv("NO_COLOR") == ""
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns >= 40 {
			p.width = columns
		}
	}
	if width != 0 {
		p.width = width
	}
	return p
}

func (p *picture) draw(l *inspect.Log) error {
	var b strings.Builder
	names := len("wal.meta")
	files := drawn(l)
	for _, f := range files {
		names = max(names, len(f.Name))
	}
	const ranges = 16 // columns of the entries
	columns := max(p.width-names-ranges-5, 10)
	perCell := cellBytes(files, columns-1)
	fmt.Fprintf(&b, "%-*s  [%s]\n", names, "wal.meta", p.metaBar(l))
	for _, f := range files {
		fmt.Fprintf(&b, "%-*s  [%s] %s\n", names, f.Name, p.bar(f, perCell), barText(f))
	}
	fmt.Fprintf(&b, "\none cell is %s; the first one of a bar is the index: %s\n%s\n", bytesText(perCell), p.cell("=", "7"), p.legend())
	_, err := io.WriteString(p.out, b.String())
	return err
}

// drawn returns the files that get a bar: entry files, the spare ones last.
func drawn(l *inspect.Log) []*inspect.File {
	files := slices.Clone(l.Files)
	for _, o := range l.Others {
		if o.Role == inspect.RoleSpare {
			all := inspect.Piece{From: entryfile.DataStart, To: o.Size, Kind: inspect.Stale}
			files = append(files, &inspect.File{Name: o.Name, Role: o.Role, Size: o.Size, Pieces: []inspect.Piece{all}})
		}
	}
	return files
}

// barText is what stands beside a bar.
func barText(f *inspect.File) string {
	if f.Role != inspect.RoleLive {
		return string(f.Role)
	}
	return rangeText(f.First, f.Last)
}

// cellBytes returns how many bytes a cell stands for, so that the largest file fits.
func cellBytes(files []*inspect.File, columns int) int64 {
	largest := int64(1)
	for _, f := range files {
		largest = max(largest, f.Size-entryfile.DataStart)
	}
	per := (largest + int64(columns) - 1) / int64(columns)
	unit := int64(512)
	for unit < per {
		unit *= 2
	}
	return unit
}

// metaBar shows the pages of wal.meta.
func (p *picture) metaBar(l *inspect.Log) string {
	if l.Meta == nil {
		return p.kindCell(inspect.Damaged)
	}
	var b strings.Builder
	for _, page := range l.Meta.Pages {
		kind := inspect.Live
		switch page.State {
		case "valid":
			kind = inspect.Superseded
		case "blank", "wiped":
			kind = inspect.Free
		case "damaged":
			kind = inspect.Damaged
		}
		b.WriteString(p.kindCell(kind))
	}
	return b.String()
}

// bar shows one file.
func (p *picture) bar(f *inspect.File, perCell int64) string {
	var b strings.Builder
	if f.IndexDamaged {
		b.WriteString(p.kindCell(inspect.Damaged))
	} else {
		b.WriteString(p.cell("=", "7"))
	}
	k := 0
	for at := int64(entryfile.DataStart); at < f.Size; at += perCell {
		for k < len(f.Pieces) && f.Pieces[k].To <= at {
			k++
		}
		best := -1
		for _, piece := range f.Pieces[k:] {
			if piece.From >= at+perCell {
				break
			}
			best = max(best, slices.Index(inspect.Kinds, piece.Kind))
		}
		if best >= 0 {
			b.WriteString(p.kindCell(inspect.Kinds[best]))
		}
	}
	return b.String()
}

func (p *picture) kindCell(k inspect.Kind) string {
	look := lookOf(k)
	return p.cell(look.cell, look.ansi)
}

func (p *picture) cell(text, ansi string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + ansi + "m" + text + "\x1b[0m"
}

func (p *picture) legend() string {
	var parts []string
	for _, look := range kindLooks {
		parts = append(parts, p.cell(look.cell, look.ansi)+" "+look.means)
	}
	return strings.Join(parts, "  ")
}

// writeSVG writes the picture to a file, in place of what is there.
func writeSVG(name string, l *inspect.Log) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.WriteString(f, svgOf(l))
	return err
}

// Measures of the SVG picture, in pixels.
const (
	svgLeft, svgBar, svgRight = 110, 900, 140
	svgTop, svgRow, svgHeight = 40, 30, 20
)

func svgOf(l *inspect.Log) string {
	files, largest := drawn(l), int64(entryfile.DataStart)
	for _, f := range files {
		largest = max(largest, f.Size)
	}
	x := func(at int64) float64 { return svgLeft + svgBar*float64(at)/float64(largest) }
	var b strings.Builder
	width, height := svgLeft+svgBar+svgRight, svgTop+svgRow*(len(files)+3)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n"+`<text x="10" y="20">%s: entries %s</text>`+"\n", html.EscapeString(l.Dir), entriesText(l))
	y := svgTop
	rect := func(from, to int64, fill, title string) {
		fmt.Fprintf(&b, `<rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s"><title>%s</title></rect>`+"\n",
			x(from), y, max(x(to)-x(from), 0.2), svgHeight, fill, html.EscapeString(title))
	}
	for _, f := range files {
		fmt.Fprintf(&b, `<text x="10" y="%d">%s</text>`+"\n", y+15, html.EscapeString(f.Name))
		index := "#8a93a0"
		if f.IndexDamaged {
			index = lookOf(inspect.Damaged).fill
		}
		rect(0, min(f.Size, entryfile.DataStart), index, "index: slots and header pages")
		for _, piece := range f.Pieces {
			rect(piece.From, piece.To, lookOf(piece.Kind).fill,
				fmt.Sprintf("%s: %s at offset %d", piece.Kind, bytesText(piece.To-piece.From), piece.From))
		}
		fmt.Fprintf(&b, `<text x="%.0f" y="%d">%s</text>`+"\n", x(f.Size)+8, y+15, barText(f))
		y += svgRow
	}
	svgScale(&b, largest, x, y)
	svgLegend(&b, y+svgRow)
	b.WriteString("</svg>\n")
	return b.String()
}

// svgScale draws marks at round sizes.
func svgScale(b *strings.Builder, largest int64, x func(int64) float64, y int) {
	unit := int64(1 << 20)
	for unit*10 < largest {
		unit *= 2
	}
	for at := int64(0); at <= largest; at += unit {
		fmt.Fprintf(b, `<path d="M%.1f %d v6" stroke="#333"/><text x="%.1f" y="%d" text-anchor="middle" font-size="10">%s</text>`+"\n",
			x(at), y, x(at), y+17, bytesText(at))
	}
}

func svgLegend(b *strings.Builder, y int) {
	at := 10
	legend := append([]kindLook{{fill: "#8a93a0", means: "index"}}, kindLooks...)
	for _, look := range legend {
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", at, y, look.fill, at+17, y+10, look.means)
		at += 110
	}
}
