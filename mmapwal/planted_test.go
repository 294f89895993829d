package mmapwal_test

import (
	"cmp"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// plantedFaults are faults that TestModel has to find, or another test.
var plantedFaults = []struct {
	name, file, from, to string
	test                 string // "": TestModel
}{
	{"an overwritten suffix comes back at Open", "load.go",
		"\t\tif first != 0 {\n\t\t\td.supersede(first)\n\t\t}\n", "\t\t_ = first\n", ""},
	{"an overwrite keeps an entry too many", "../entryfile/index.go",
		"keep = int(i - x.first)", "keep = int(i-x.first) + 1", ""},
	{"a compaction notes the term of another entry", "snapshot.go",
		"if term, err = d.term(v, at); err != nil {", "if term, err = d.term(v, at+1); err != nil {", ""},
	{"the commit index is left beyond the log", "open.go",
		"\t\tm.HardState.Commit = commit\n", "", ""},
	{"cleared entries are read", "../entryfile/read.go",
		"return i < b.ClearedBelow && loc", "return i+1 < b.ClearedBelow && loc", ""},
	{"the files of a copy are not synced", "found.go",
		"	if d.made || m.Stamp != 0 &&", "	if true || m.Stamp != 0 &&", "TestCopyBeforeFirstPromise"},
	{"a copy is noticed after the first promise", "storage.go",
		"	return d.poisonIfSync(d.ensureFound())\n", "	return nil\n", "TestCopyBeforeFirstPromise"},
}

// TestPlantedFaults shows that TestModel and others can fail: it runs them on the package with
// one fault after another in it, and on the package as it is.
func TestPlantedFaults(t *testing.T) {
	if os.Getenv("MUTATIONS") == "" {
		t.Skip("builds the package once per fault, which takes a minute: MUTATIONS=1 go test ./mmapwal -run TestPlantedFaults -v")
	}
	if out, err := testWith(t, "TestModel", ""); err != nil {
		t.Fatalf("without a fault: %v\n%s", err, out)
	}
	for _, fault := range plantedFaults {
		t.Run(fault.name, func(t *testing.T) {
			test := cmp.Or(fault.test, "TestModel")
			out, err := testWith(t, test, plant(t, fault.file, fault.from, fault.to))
			if err == nil {
				t.Fatalf("%s passes with the fault in it\n%s", test, out)
			}
			if !strings.Contains(out, "--- FAIL: "+test) || !strings.Contains(out, "SEED=") {
				t.Fatalf("not a failure of %s:\n%s", test, out)
			}
		})
	}
}

// TestPlantedFaultsFit: what is to be replaced is there.
func TestPlantedFaultsFit(t *testing.T) {
	for _, fault := range plantedFaults {
		plant(t, fault.file, fault.from, fault.to)
	}
}

// plant writes an overlay in which a file has one string replaced.
func plant(t *testing.T, file, from, to string) (overlay string) {
	t.Helper()
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), from); n != 1 {
		t.Fatalf("%s has the string to replace %d times, not once; the fault has to be planted anew:\n%s", file, n, from)
	}
	dir := t.TempDir()
	patched := filepath.Join(dir, "patched.go")
	overlay = filepath.Join(dir, "overlay.json")
	content, err := json.Marshal(map[string]any{"Replace": map[string]string{path: patched}})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte) {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(patched, []byte(strings.Replace(string(source), from, to, 1)))
	write(overlay, content)
	return overlay
}

// testWith runs a test, of TestModel a few seeds, in a process of its own.
func testWith(t *testing.T, test, overlay string) (output string, err error) {
	t.Helper()
	args := []string{"test", "-run", "^" + test + "$", "-count=1", "-vet=off", "-failfast", "-timeout=60s"}
	if overlay != "" {
		args = append(args, "-overlay="+overlay)
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "SEED=", "SEEDS=4", "STEPS=150")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
