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
	"github.com/seed-2fef92ad/raftwal/metafile"
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
		Long: `map draws each file of the log in DIR as a bar: wal.meta with its four pages, the
snapshot's file if it has one, and the entry files: the records that count, those
that compaction is done with, superseded and cleared ones, torn writes, damage, what
was given back to the disk, what is left of an earlier life of the file (all of a
spare one), and what is free. All bars but that of wal.meta have the same scale. The
first cell of an entry file stands for the slots and header pages in front of its
records.

Where a cell stands for bytes of several kinds it shows the most remarkable one:
damage before torn writes, these before records that count, and so on. It is coloured
on a terminal, unless NO_COLOR is set. It reads every byte, as verify does, changes
nothing, and takes no lock. It exits with 1 if there is damage,
3 if it could not look.`,
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
	names := len(metafile.Name)
	files := drawn(l)
	for _, f := range files {
		names = max(names, len(shown(f.Name)))
	}
	const ranges = 16 // columns of the entries
	columns := max(p.width-names-ranges-5, 10)
	perCell := cellBytes(files, columns-1)
	fmt.Fprintf(&b, "%-*s  [%s]\n", names, metafile.Name, p.metaBar(l))
	for _, f := range files {
		fmt.Fprintf(&b, "%-*s  [%s] %s\n", names, shown(f.Name), p.bar(f, perCell), barText(f))
	}
	fmt.Fprintf(&b, "\none cell is %s; the first one of a bar is the index: %s\n%s\n", bytesText(perCell), p.cell("=", "7"), p.legend())
	_, err := io.WriteString(p.out, b.String())
	return err
}

// drawn returns the files that get a bar on the common scale: the snapshot's, entry files,
// and last the spare ones.
func drawn(l *inspect.Log) []*inspect.File {
	var snapshots, spares []*inspect.File
	for _, o := range l.Others {
		f := &inspect.File{Name: o.Name, Role: o.Role, Size: o.Size}
		all := inspect.Piece{From: indexEnd(f), To: o.Size}
		switch {
		case o.Role == inspect.RoleSpare:
			all.Kind = inspect.Stale
			spares = append(spares, f)
		case o.Role == inspect.RoleSnapshot && damagedFile(l, o.Name):
			all.Kind = inspect.Damaged
			snapshots = append(snapshots, f)
		case o.Role == inspect.RoleSnapshot:
			all.Kind = inspect.Live
			snapshots = append(snapshots, f)
		}
		f.Pieces = []inspect.Piece{all}
	}
	return slices.Concat(snapshots, l.Files, spares)
}

// damagedFile reports whether there is damage in the file of that name.
func damagedFile(l *inspect.Log, name string) bool {
	return slices.ContainsFunc(l.Problems, func(p inspect.Problem) bool { return p.Severity == inspect.Damage && p.File == name })
}

// indexEnd returns where the index of a file ends: slots and header pages of an entry
// file. A snapshot's file has none.
func indexEnd(f *inspect.File) int64 {
	if f.Role == inspect.RoleSnapshot {
		return 0
	}
	return entryfile.DataStart
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
		largest = max(largest, f.Size-indexEnd(f))
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
		b.WriteString(p.kindCell(pageKind(page.State)))
	}
	return b.String()
}

// pageKind returns as what a page of wal.meta is drawn.
func pageKind(state string) inspect.Kind {
	switch state {
	case "valid":
		return inspect.Superseded
	case "blank", "wiped":
		return inspect.Free
	case "damaged":
		return inspect.Damaged
	}
	return inspect.Live
}

// bar shows one file.
func (p *picture) bar(f *inspect.File, perCell int64) string {
	var b strings.Builder
	switch {
	case indexEnd(f) == 0:
	case f.IndexDamaged:
		b.WriteString(p.kindCell(inspect.Damaged))
	default:
		b.WriteString(p.cell("=", "7"))
	}
	k := 0
	for at := indexEnd(f); at < f.Size; at += perCell {
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
	svgBar, svgRight          = 900, 140
	svgTop, svgRow, svgHeight = 40, 30, 20
	svgPage                   = 40  // of wal.meta
	svgLeast                  = 0.2 // for a piece
	svgLeastDamage            = 4.0 // for one that must not be overlooked
	svgLetter                 = 7.5
)

// svgPicture is an SVG picture in the making.
type svgPicture struct {
	strings.Builder
	left    float64 // where the bars begin
	largest int64   // size of the largest file
	y       int     // of the row
}

func svgOf(l *inspect.Log) string {
	files := drawn(l)
	p := &svgPicture{largest: entryfile.DataStart, y: svgTop}
	name := len(metafile.Name)
	for _, f := range files {
		p.largest, name = max(p.largest, f.Size), max(name, len(shown(f.Name)))
	}
	p.left = 20 + svgLetter*float64(name)
	width, height := int(p.left)+svgBar+svgRight, svgTop+svgRow*(len(files)+4)
	fmt.Fprintf(p, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(p, `<rect width="100%%" height="100%%" fill="#ffffff"/>`+"\n"+`<text x="10" y="20">%s: entries %s</text>`+"\n", html.EscapeString(shown(l.Dir)), entriesText(l))
	p.meta(l)
	for _, f := range files {
		p.file(f)
	}
	p.scale()
	p.legend()
	p.WriteString("</svg>\n")
	return p.String()
}

// x returns where an offset of a file is drawn.
func (p *svgPicture) x(at int64) float64 {
	return p.left + svgBar*float64(at)/float64(p.largest)
}

func (p *svgPicture) rect(x, width float64, fill, title string) {
	fmt.Fprintf(p, `<rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s"><title>%s</title></rect>`+"\n",
		x, p.y, width, svgHeight, fill, html.EscapeString(title))
}

// name writes what a row is of, and text behind its bar.
func (p *svgPicture) name(name, text string, end float64) {
	fmt.Fprintf(p, `<text x="10" y="%d">%s</text>`+"\n", p.y+15, html.EscapeString(shown(name)))
	fmt.Fprintf(p, `<text x="%.0f" y="%d">%s</text>`+"\n", end+8, p.y+15, html.EscapeString(text))
	p.y += svgRow
}

// meta draws the pages of wal.meta, not to scale.
func (p *svgPicture) meta(l *inspect.Log) {
	if l.Meta == nil {
		p.rect(p.left, 4*svgPage, lookOf(inspect.Damaged).fill, "it cannot be read")
		p.name(metafile.Name, "damaged", p.left+4*svgPage)
		return
	}
	x := p.left
	for k, page := range l.Meta.Pages {
		p.rect(x, svgPage-1, lookOf(pageKind(page.State)).fill, fmt.Sprintf("page %d: %s", k, page.State))
		x += svgPage
	}
	p.name(metafile.Name, "four pages, not to scale", x)
}

// file draws one file. Damage is drawn last, and so wide that it is seen.
func (p *svgPicture) file(f *inspect.File) {
	if end := indexEnd(f); end > 0 {
		fill := "#8a93a0"
		if f.IndexDamaged {
			fill = lookOf(inspect.Damaged).fill
		}
		p.rect(p.x(0), p.x(min(f.Size, end))-p.x(0), fill, "index: slots and header pages")
	}
	for _, damaged := range []bool{false, true} {
		least := svgLeast
		if damaged {
			least = svgLeastDamage
		}
		for _, piece := range f.Pieces {
			if (piece.Kind == inspect.Damaged) == damaged {
				p.rect(p.x(piece.From), max(p.x(piece.To)-p.x(piece.From), least), lookOf(piece.Kind).fill,
					fmt.Sprintf("%s: %s at offset %d", piece.Kind, bytesText(piece.To-piece.From), piece.From))
			}
		}
	}
	p.name(f.Name, barText(f), p.x(f.Size))
}

// scale draws marks at round sizes.
func (p *svgPicture) scale() {
	unit := int64(1 << 20)
	for unit*10 < p.largest {
		unit *= 2
	}
	for at := int64(0); at <= p.largest; at += unit {
		fmt.Fprintf(p, `<path d="M%.1f %d v6" stroke="#333"/><text x="%.1f" y="%d" text-anchor="middle" font-size="10">%s</text>`+"\n",
			p.x(at), p.y, p.x(at), p.y+17, bytesText(at))
	}
	p.y += svgRow
}

func (p *svgPicture) legend() {
	at := 10
	legend := append([]kindLook{{fill: "#8a93a0", means: "index"}}, kindLooks...)
	for _, look := range legend {
		fmt.Fprintf(p, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", at, p.y, look.fill, at+17, p.y+10, look.means)
		at += 110
	}
}
