package demo

import (
	"fmt"
	"io"
	"log/slog"
	"time"
)

const (
	nodes         = 3
	window        = 32      // writes in flight
	writesPerKill = 10      // at least
	maxWrites     = 1 << 20 // keeps what the parent remembers small
	maxKills      = 1000
	fileDataSize  = 1 << 20 // the smallest, so that even a short run fills files
	tick          = 30 * time.Millisecond
	stalledAfter  = 700 * time.Millisecond
	settleTimeout = 20 * time.Second // for catching up in the end, and for stopping
)

// Config is what Run does.
type Config struct {
	Writes int    // how many writes must be acknowledged
	Kills  int    // how many times a node is killed meanwhile
	Dir    string // where the logs go; "" for a temporary directory
	Keep   bool   // leave the logs there
	Seed   uint64 // of payloads, victims and moments

	Node     []string        // the command line that calls RunNode
	Out      io.Writer       // is told what happens, if not nil
	Progress func(acked int) // is called when writes were acknowledged, if not nil
}

// ConfigError says what is wrong with a Config. Nothing was done then.
type ConfigError struct{ Reason string }

// Error implements error.
func (e *ConfigError) Error() string { return e.Reason }

func configErrorf(format string, args ...any) error {
	return &ConfigError{Reason: fmt.Sprintf(format, args...)}
}

// validate fills in what is optional, and checks the rest.
func (c *Config) validate() error {
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Progress == nil {
		c.Progress = func(int) {}
	}
	switch {
	case c.Writes < 1 || c.Writes > maxWrites:
		return configErrorf("%d writes: it can be 1 to %d", c.Writes, maxWrites)
	case c.Kills < 0 || c.Kills > maxKills:
		return configErrorf("%d kills: it can be 0 to %d", c.Kills, maxKills)
	case c.Writes < c.Kills*writesPerKill:
		return configErrorf("%d kills need at least %d writes to be spread over, not %d", c.Kills, c.Kills*writesPerKill, c.Writes)
	case len(c.Node) == 0:
		return configErrorf("no command to start a node with")
	}
	return nil
}

// deadline is when Run gives up: far beyond what a slow machine takes.
func (c *Config) deadline() time.Duration {
	return time.Minute + time.Duration(c.Writes)*20*time.Millisecond + time.Duration(c.Kills)*5*time.Second
}

// logger is the one of a log. What is normal after a kill is not worth a line.
func logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
