package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// screen shows lines on out and, if errs is a terminal, a progress bar on errs.
type screen struct {
	out io.Writer
	bar *progressbar.ProgressBar // nil without a terminal
}

func newScreen(out, errs io.Writer, total int) *screen {
	s := &screen{out: out}
	if f, ok := errs.(*os.File); ok && total > 0 && term.IsTerminal(int(f.Fd())) {
		s.bar = progressbar.NewOptions(total,
			progressbar.OptionSetWriter(errs),
			progressbar.OptionSetDescription("measuring"),
			progressbar.OptionShowCount(),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	return s
}

// Write implements io.Writer: it puts lines above the bar.
func (s *screen) Write(line []byte) (int, error) {
	if s.bar == nil {
		return s.out.Write(line)
	}
	_ = s.bar.Clear() // what a bar looks like is no reason to fail
	n, err := s.out.Write(line)
	_ = s.bar.RenderBlank()
	return n, err
}

// progress moves the bar.
func (s *screen) progress(done int) {
	if s.bar != nil {
		_ = s.bar.Set(done)
	}
}

// close takes the bar away.
func (s *screen) close() {
	if s.bar != nil {
		_ = s.bar.Clear()
	}
}
