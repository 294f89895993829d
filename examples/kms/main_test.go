package main

import (
	"bytes"
	"testing"
)

func TestRun(t *testing.T) {
	var out bytes.Buffer
	if err := run(&out); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "encrypted: true, entry 1: a secret\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
