package mmapwal_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports: who uses the engine does not get what only the tool and the
// metrics need.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	packages := strings.Fields(string(out))
	if len(packages) < 50 { // the standard library is among them
		t.Fatalf("only %d packages: %v", len(packages), packages)
	}
	for _, p := range packages {
		for _, heavy := range []string{"prometheus", "cobra", "progressbar", "golang.org/x/term"} {
			if strings.Contains(p, heavy) {
				t.Errorf("mmapwal imports %s", p)
			}
		}
	}
}
