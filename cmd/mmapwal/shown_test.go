package main

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/spf13/cobra"
)

// TestNamesForgeNothing: a name with an escape or a newline in it is shown quoted.
func TestNamesForgeNothing(t *testing.T) {
	dir := closedLog(t, nil)
	evil := "x\x1b[2J\nOK: no damage\n00009.wal"
	must(t, os.WriteFile(filepath.Join(dir, evil), nil, 0o600))
	for _, command := range []string{"info", "verify", "map", "dump"} {
		code, out, errs := execute(command, dir)
		if code != exitOK || strings.Contains(out+errs, "\x1b") || strings.Contains(out, "\nOK: no damage\n00009.wal") {
			t.Errorf("%s: exit code %d\n%s%s", command, code, out, errs)
		}
	}
	expectParts(t, exitOK, []string{"info", dir}, strconv.Quote(evil)+"  unknown")
	odd := filepath.Join(t.TempDir(), "log\nOK: no damage")
	copyDir(t, dir, odd)
	for _, args := range [][]string{{"verify", odd}, {"repair", odd, "--dry-run"}, {"backup", odd, odd + ".tar"}, {"restore", odd + ".tar", odd + "2"}} {
		if _, out, errs := execute(args...); strings.Contains(out, "log\nOK: no damage") {
			t.Errorf("%s %s: a directory's name forges a line:\n%s%s", args[0], strconv.Quote(odd), out, errs)
		}
	}
	must(t, os.Remove(filepath.Join(dir, "wal.meta")))
	if _, _, errs := execute("info", filepath.Join(dir, evil, "none")); strings.Contains(errs, "\x1b") {
		t.Errorf("an error: %q", errs)
	}
}

func TestShown(t *testing.T) {
	for name, want := range map[string]string{
		"00001.wal": "00001.wal", "größe 1": "größe 1", "": `""`, " x": `" x"`, "a\tb": `"a\tb"`, "a\u202eb": `"a\u202eb"`,
		`a"b`: `"a\"b"`, "\xff": `"\xff"`,
	} {
		if got := shown(name); got != want {
			t.Errorf("%q is shown as %s, want %s", name, got, want)
		}
	}
}

// TestInfoFits: it is no wider than a terminal of 100 columns.
func TestInfoFits(t *testing.T) {
	dir := closedLog(t, nil)
	t.Chdir(filepath.Dir(dir))
	for line := range strings.Lines(expectParts(t, exitOK, []string{"info", "log"}, "SUPERSEDED", "COMPACTED")) {
		if len(line) > 101 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	fresh := filepath.Join(t.TempDir(), "log")
	must(t, smallLog(t, fresh, nil).Close())
	if out := expectParts(t, exitOK, []string{"info", fresh}, "LIVE"); strings.Contains(out, "TORN") {
		t.Errorf("a column for what no file has:\n%s", out)
	}
}

// TestHelpHasNoEmptyDefaults, whatever the command.
func TestHelpHasNoEmptyDefaults(t *testing.T) {
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		if usage := cmd.UsageString(); strings.Contains(usage, "(default )") {
			t.Errorf("%s:\n%s", cmd.CommandPath(), usage)
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(newRoot())
}

// TestCompletion: --from and --to offer what there is.
func TestCompletion(t *testing.T) {
	expectParts(t, exitOK, []string{"__complete", "import", "--from", ""}, "dgraph\n", "etcd\n")
	expectParts(t, exitOK, []string{"__complete", "export", "--to", ""}, "dgraph\n")
}

// svgRect is a rectangle of an SVG picture.
type svgRect struct {
	Width string `xml:"width,attr"`
	Title string `xml:"title"`
}

func drawSVG(t *testing.T, dir string, code int) (rects []svgRect, text string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "map.svg")
	expectParts(t, code, []string{"map", dir, "--svg", name})
	content, err := os.ReadFile(name)
	must(t, err)
	var picture struct {
		Rects []svgRect `xml:"rect"`
	}
	must(t, xml.Unmarshal(content, &picture))
	return picture.Rects, string(content)
}

// TestSVGShowsAll: the pages of wal.meta, the snapshot's file, and damage so wide that
// nobody overlooks it.
func TestSVGShowsAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	wal := smallLog(t, dir, nil)
	must(t, wal.CreateSnapshot(5, nil, bytes.Repeat([]byte("s"), 3000)))
	must(t, wal.Close())
	snapshot := "0000000000000001-0000000000000005.snap"
	rects, text := drawSVG(t, dir, exitOK)
	pages := 0
	for _, r := range rects {
		if strings.HasPrefix(r.Title, "page ") {
			pages++
		}
		if strings.HasPrefix(r.Title, "damaged") {
			t.Errorf("damage: %+v", r)
		}
	}
	if pages != 4 || !strings.Contains(text, snapshot) || !strings.Contains(text, "wal.meta") {
		t.Errorf("%d pages\n%s", pages, text)
	}
	expectParts(t, exitOK, []string{"map", dir}, snapshot+"  [#]")

	flipByte(t, dir, "00002.wal", entryfile.DataStart+60)
	flipByte(t, dir, snapshot, 100)
	rects, _ = drawSVG(t, dir, exitFailed)
	damaged := 0
	for _, r := range rects {
		if strings.HasPrefix(r.Title, "damaged") {
			damaged++
			if width, err := strconv.ParseFloat(r.Width, 64); err != nil || width < svgLeastDamage {
				t.Errorf("%s wide: %s", r.Width, r.Title)
			}
		}
	}
	if damaged != 2 {
		t.Errorf("%d damaged places", damaged)
	}
	expectParts(t, exitFailed, []string{"map", dir}, snapshot+"  [!]")
}
