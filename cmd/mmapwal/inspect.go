package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/schollz/progressbar/v3"
	"github.com/seed-2fef92ad/raftwal/encryption"
	"github.com/seed-2fef92ad/raftwal/internal/inspect"
	"github.com/seed-2fef92ad/raftwal/internal/vfs"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// lookFlags are the flags of all commands that look at a log.
type lookFlags struct {
	keyFile string
	json    bool
	wrapper encryption.KeyWrapper // from keyFile, after prepare
}

func (f *lookFlags) add(cmd *cobra.Command, jsonHelp string) {
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "file with the master key of an encrypted log: 16, 24 or 32 bytes")
	if jsonHelp != "" {
		cmd.Flags().BoolVar(&f.json, "json", false, jsonHelp)
	}
}

// prepare reads the key. But for one that may not be read an error is one of the command line.
func (f *lookFlags) prepare() error {
	if f.keyFile == "" {
		return nil
	}
	key, err := readKey(f.keyFile)
	if errors.Is(err, fs.ErrPermission) {
		return failed(err)
	}
	if err != nil {
		return err
	}
	defer clear(key)
	f.wrapper, err = encryption.NewKeyWrapper(key)
	return err
}

// look looks at the log in dir, with a progress bar if that takes long.
func (f *lookFlags) look(cmd *cobra.Command, dir string, check bool) (*inspect.Log, error) {
	bar := newLateBar(cmd.ErrOrStderr())
	defer bar.close()
	return f.lookAt(cmd.Context(), dir, check, bar.progress)
}

func (f *lookFlags) lookAt(ctx context.Context, dir string, check bool, progress func(done, total int64)) (*inspect.Log, error) {
	l, err := inspect.Look(ctx, vfs.OS(), dir, inspect.Options{Wrapper: f.wrapper, Check: check, Progress: progress})
	if err != nil && ctx.Err() != nil {
		return nil, &failure{err: err, code: exitNoLook}
	}
	return l, err
}

// printJSON prints v for programs.
func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// lateBar is a progress bar that shows itself on a terminal only, and only if what
// it is about takes more than a second.
type lateBar struct {
	errs    *os.File // nil without a terminal
	started time.Time
	bar     *progressbar.ProgressBar // nil until it is shown
}

func newLateBar(errs io.Writer) *lateBar {
	b := &lateBar{started: time.Now()}
	if f, ok := errs.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.errs = f
	}
	return b
}

func (b *lateBar) progress(done, total int64) {
	if b.errs == nil || time.Since(b.started) < time.Second {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(b.errs),
			progressbar.OptionSetDescription("reading"),
			progressbar.OptionShowBytes(true),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	b.bar.ChangeMax64(total)
	_ = b.bar.Set64(done) // what a bar looks like is no reason to fail
}

func (b *lateBar) close() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}

// bytesText is a size for people: exact below 10 KiB, then with one decimal.
func bytesText(n int64) string {
	switch {
	case n < 0:
		return "?"
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

// rangeText is a range of entries.
func rangeText(first, last uint64) string {
	switch {
	case first == 0 || last < first:
		return "-"
	case first == last:
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// shown returns a name as it is printed: quoted if it holds what a terminal would not show
// as it is, or what could pass for a line of the output.
func shown(name string) string {
	if q := strconv.Quote(name); q[1:len(q)-1] != name || strings.TrimSpace(name) != name || name == "" {
		return q
	}
	return name
}

// printable returns a message in which characters that control a terminal are escaped, as
// names of files may hold them.
func printable(text string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
