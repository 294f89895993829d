package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDocument: tables are replaced, and nothing else.
func TestDocument(t *testing.T) {
	path := filepath.Join(t.TempDir(), "doc.md")
	names := []string{"machine", "ratios", "latencies"}
	var text strings.Builder
	for _, name := range names {
		text.WriteString("About " + name + ".\n\n<!-- " + name + ": begin -->\nold figures\n<!-- " + name + ": end -->\n\n")
	}
	write(t, path, text.String())
	res := results(map[string]float64{"reference": 1, "raftwal": 1.5, "pebble": 20})
	for range 2 { // a second run finds what the first one left
		if err := Document(path, res); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got := string(raw)
	for _, want := range []string{"About ratios.", "About latencies.", "| save     | 1.5 µs    | 1.50 *  | 20     |", "<!-- latencies: end -->"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("want %q once in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "old figures") {
		t.Errorf("not replaced:\n%s", got)
	}
	write(t, path, "nothing")
	if err := Document(path, res); err == nil || !strings.Contains(err.Error(), "<!-- machine: begin -->") {
		t.Errorf("a document without marks: %v", err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
