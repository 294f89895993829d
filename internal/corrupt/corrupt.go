// Package corrupt holds the one error that says where promised data is damaged.
package corrupt

import (
	"errors"
	"fmt"
)

// Err is what every Error wraps.
var Err = errors.New("the log is corrupt")

// Error names the place of a damage and what it took.
type Error struct {
	File        string // path
	Offset      int64  // bytes from the start of the file
	First, Last uint64 // indexes of the entries that are affected; 0, 0 if unknown or none
	Reason      string
}

func (e *Error) Error() string {
	entries := ""
	switch {
	case e.First != 0 && e.First == e.Last:
		entries = fmt.Sprintf(", entry %d", e.First)
	case e.First != 0:
		entries = fmt.Sprintf(", entries %d to %d", e.First, e.Last)
	}
	return fmt.Sprintf("%v: %s, offset %d%s: %s", Err, e.File, e.Offset, entries, e.Reason)
}

// Unwrap makes errors.Is(err, Err) true.
func (e *Error) Unwrap() error { return Err }

// At returns an Error without entries.
func At(file string, offset int64, reason string, args ...any) *Error {
	return &Error{File: file, Offset: offset, Reason: fmt.Sprintf(reason, args...)}
}

// Both returns what is wrong with two copies, once if it is the same.
func Both(a, b error) string {
	if a.Error() == b.Error() {
		return a.Error()
	}
	return a.Error() + "; " + b.Error()
}
