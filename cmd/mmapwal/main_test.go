package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// asCommand, in the environment, makes the test binary the command itself.
const asCommand = "MMAPWAL_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// command returns the command, in a process of its own.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), asCommand+"=1")
	return cmd
}

// execute runs the command in this process and returns what it printed.
func execute(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestWithoutSubcommandPrintsHelp(t *testing.T) {
	code, out, _ := execute()
	if code != exitOK || !strings.Contains(out, "demo") {
		t.Errorf("exit code %d, output:\n%s", code, out)
	}
	if strings.Contains(out, nodeCommand) {
		t.Errorf("the help shows the hidden subcommand:\n%s", out)
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := execute("--version")
	if code != exitOK || !strings.HasPrefix(out, "mmapwal version ") {
		t.Errorf("exit code %d, output %q", code, out)
	}
}

func TestBadUsage(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := t.TempDir()
	if err := os.Mkdir(taken+"/node3", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"unknown subcommand":   {[]string{"frobnicate"}, "unknown command"},
		"unknown flag":         {[]string{"demo", "--frobnicate"}, "unknown flag"},
		"argument":             {[]string{"demo", "now"}, "unknown command"},
		"flag without number":  {[]string{"demo", "--writes", "many"}, "invalid argument"},
		"no writes":            {[]string{"demo", "--writes", "0"}, "0 writes"},
		"too many writes":      {[]string{"demo", "--writes", "1000000000"}, "writes"},
		"negative kills":       {[]string{"demo", "--kills", "-1"}, "-1 kills"},
		"too many kills":       {[]string{"demo", "--kills", "1000000"}, "kills"},
		"kills without writes": {[]string{"demo", "--writes", "99", "--kills", "10"}, "at least 100 writes"},
		"negative seed":        {[]string{"demo", "--seed", "-1"}, "invalid argument"},
		"logs are there":       {[]string{"demo", "--dir", taken}, "node3 is there already"},
		"dir is a file":        {[]string{"demo", "--dir", file}, "is not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := execute(test.args...)
			if code != exitUsage || !strings.Contains(errs, test.want) || !strings.Contains(errs, "--help") {
				t.Errorf("exit code %d, want %d; want %q in:\n%s", code, exitUsage, test.want, errs)
			}
			if strings.Contains(out, "OK") {
				t.Errorf("printed:\n%s", out)
			}
		})
	}
	if _, err := os.Stat(taken + "/node3"); err != nil {
		t.Errorf("what was there before is gone: %v", err)
	}
}

func TestFailureIsNotBadUsage(t *testing.T) {
	// Nobody tells this node what to do.
	code, _, errs := execute(nodeCommand)
	if code != exitFailed || strings.Contains(errs, "--help") {
		t.Errorf("exit code %d, want %d; printed:\n%s", code, exitFailed, errs)
	}
}
