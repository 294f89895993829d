package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-2fef92ad/raftwal/entryfile"
	"github.com/seed-2fef92ad/raftwal/internal/page"
	"go.etcd.io/raft/v3/raftpb"
)

// TestExitCodes: each command says by its exit code what it met, and with --json by an object on
// standard output, too.
func TestExitCodes(t *testing.T) {
	key := keyFile(t, strings.Repeat("k", 32))
	whole, none := closedLog(t, nil), filepath.Join(t.TempDir(), "none")
	encrypted := closedLog(t, []byte(strings.Repeat("s", 32)))
	damaged := closedLog(t, nil)
	flipByte(t, damaged, "00001.wal", recordOf(t, damaged, 6)+20)
	degraded := closedLog(t, nil)
	flipByte(t, degraded, "wal.meta", page.Size+60)
	open := filepath.Join(t.TempDir(), "log")
	wal := smallLog(t, open, nil)
	defer wal.Close()
	for _, test := range []struct {
		code int
		args string
	}{
		{exitOK, "info " + whole}, {exitOK, "verify " + whole}, {exitOK, "dump " + whole}, {exitOK, "repair --dry-run " + whole},
		{exitFailed, "info " + damaged}, {exitFailed, "verify " + damaged}, {exitFailed, "dump " + damaged}, {exitFailed, "repair --dry-run " + damaged},
		{exitUsage, "verify --frob " + whole}, {exitUsage, "dump --from 5 --to 4 " + whole}, {exitUsage, "repair " + whole}, {exitUsage, "verify"},
		{exitNoLook, "info " + none}, {exitNoLook, "verify " + none}, {exitNoLook, "dump " + none}, {exitNoLook, "repair --yes " + none},
		{exitNoLook, "verify " + t.TempDir()}, {exitNoLook, "backup " + none + " " + none + "x"}, {exitNoLook, "import --from dgraph " + none + " " + none + "x"},
		{exitNoLook, "verify --key-file " + key + " " + encrypted}, {exitNoLook, "dump " + encrypted}, {exitNoLook, "repair --yes " + encrypted},
		{exitNoLook, "repair --dry-run " + open}, {exitNoLook, "verify " + filepath.Join(whole, "wal.meta")},
		{exitOK, "info " + degraded}, {exitDegraded, "verify " + degraded}, {exitDegraded, "repair --dry-run " + degraded},
		{exitOK, "repair --yes " + degraded}, {exitOK, "verify " + degraded},
		{exitLost, "repair --yes " + damaged}, {exitOK, "verify " + damaged},
	} {
		code, out, errs := execute(append(strings.Fields(test.args), "--json")...)
		if code != test.code {
			t.Errorf("%s: exit code %d, want %d:\n%s%s", test.args, code, test.code, out, errs)
		}
		for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
			var v map[string]any
			if err := d.Decode(&v); err != nil {
				t.Fatalf("%s: %v in:\n%s", test.args, err, out)
			}
			if v["exit_code"] != nil && v["exit_code"] != float64(test.code) {
				t.Errorf("%s: %v", test.args, v)
			}
		}
		if test.code != exitOK && !strings.Contains(test.args, "--frob") && out == "" {
			t.Errorf("%s: nothing on standard output", test.args)
		}
	}
	if _, out, _ := execute("--help"); !strings.Contains(out, "3 it could") || !strings.Contains(out, "5 nothing is lost") {
		t.Errorf("--help does not say the exit codes:\n%s", out)
	}
}

// TestKeysOfTheTool: for each command a key that is missing, or the wrong one, is neither damage
// nor an alarm; the message names the key file, or the flag.
func TestKeysOfTheTool(t *testing.T) {
	right, wrong := keyFile(t, strings.Repeat("r", 32)), keyFile(t, strings.Repeat("w", 32))
	dir, in := closedLog(t, []byte(strings.Repeat("r", 32))), t.TempDir()
	full, out := filepath.Join(in, "full"), filepath.Join(in, "out")
	succeed(t, "backup", dir, full, "--key-file", right)
	needs := [][]string{
		{"dump", dir}, {"dump", dir, "--follow"}, {"repair", "--dry-run", dir}, {"repair", "--yes", dir}, {"backup", dir, out},
		{"backup", dir, out, "--since", full}, {"restore", full, out}, {"rekey", dir, "--new-key-file", right}, {"export", "--to", "dgraph", dir, out},
	}
	looks := [][]string{{"info", dir}, {"verify", dir}, {"map", dir}} // without a key, too
	for _, args := range append(needs, looks...) {
		code, stdout, stderr := execute(append(args, "--key-file", wrong)...)
		if all := stdout + stderr; code != exitNoLook || !strings.Contains(all, "it is not the key in "+wrong+"; give the right one with --key-file: try those that there were") ||
			strings.Contains(all, "authentication failed") {
			t.Errorf("%q with the wrong key: exit code %d:\n%s", args, code, all)
		}
	}
	for _, args := range needs {
		code, stdout, stderr := execute(args...)
		if all := stdout + stderr; code != exitNoLook || strings.Count(all, "give it with --key-file") != 1 {
			t.Errorf("%q without a key: exit code %d:\n%s", args, code, all)
		}
	}
	for _, args := range looks {
		expectParts(t, exitOK, args)
	}
	succeed(t, "verify", dir, "--key-file", right)
	expectParts(t, exitUsage, []string{"verify", dir, "--key-file", keyFile(t, "short")}, "16, 24 or 32 bytes", "head -c 32 /dev/urandom > KEY")
	expectParts(t, exitUsage, []string{"verify", dir, "--key-file", keyFile(t, strings.Repeat("0f", 32))}, "hex")
	expectParts(t, exitOK, []string{"rekey", "--help"}, "head -c 32 /dev/urandom > KEY", "umask 077", "openssl rand -out KEY 32")
}

// TestNextStep: verify says what to do next, and names repair where that helps.
func TestNextStep(t *testing.T) {
	dir := closedLog(t, nil)
	flipByte(t, dir, "00001.wal", recordOf(t, dir, 6)+40)
	expectParts(t, exitFailed, []string{"verify", dir}, "next: stop the process", "`mmapwal repair "+dir+" --dry-run`")
	dir = closedLog(t, nil)
	flipByte(t, dir, "00001.wal", entryfile.HeaderPages[0]+70)
	expectParts(t, exitDegraded, []string{"verify", dir}, "degraded: 00001.wal", "DEGRADED: nothing is lost", "next: nothing is lost: `mmapwal repair "+dir+"`")
	dir = closedLog(t, nil)
	flipByte(t, dir, "wal.meta", 60)
	flipByte(t, dir, "wal.meta", page.Size+60)
	expectParts(t, exitFailed, []string{"verify", dir}, "next: no repair heals all of this")
}

// TestNextStepOfRepair: a rehearsal says what is to be done before the node starts, and looks for
// what would heal the log without loss; only a repair that was done lets the node start.
func TestNextStepOfRepair(t *testing.T) {
	dir := closedLog(t, nil)
	flipByte(t, dir, "00001.wal", 32)
	expectParts(t, exitOK, []string{"backup", dir, dir + ".tar"}, "a full backup") // slots are made anew
	_, out, _ := execute("repair", "--dry-run", dir)
	if !strings.Contains(out, "next: repair it, with --yes: nothing that counts gets lost; then start the node") {
		t.Error(out)
	}
	expectParts(t, exitOK, []string{"repair", "--yes", dir}, "next: nothing that counts is lost: start the node")
	flipByte(t, dir, "00001.wal", recordOf(t, dir, 6)+40)
	if _, _, errs := execute("backup", dir, dir+".tar2"); !strings.Contains(errs, "`mmapwal verify "+dir+"` says what to do") {
		t.Error(errs)
	}
	expectParts(t, exitFailed, []string{"repair", "--dry-run", dir}, "next: look for intact copies of the damaged files", "do not start the node as the member that it was")
	_, out, _ = execute("repair", "--yes", dir)
	if strings.Contains(out, "look for intact copies") || !strings.Contains(out, "next: the node may have acknowledged what is lost") {
		t.Error(out)
	}
}

// TestCutMetaIsHealed: of a closed log with a wal.meta that was cut behind page 0, verify and
// repair say the same: nothing is lost. Of one that was not closed, nothing but a backup helps.
func TestCutMetaIsHealed(t *testing.T) {
	for _, size := range []int64{page.Size, page.Size + 900, 2 * page.Size, 4*page.Size - 1} {
		dir := closedLog(t, nil)
		must(t, os.Truncate(filepath.Join(dir, "wal.meta"), size))
		expectParts(t, exitFailed, []string{"verify", dir}, "nothing is lost: page 0 is whole", "`mmapwal repair "+dir+" --dry-run`")
		expectParts(t, exitOK, []string{"repair", "--yes", dir}, "lost: nothing that counts")
		verified(t, exitOK, dir)
	}
	for _, size := range []int64{0, 900, page.Size, 2 * page.Size} {
		dir := crashedLog(t)
		must(t, os.Truncate(filepath.Join(dir, "wal.meta"), size))
		expectParts(t, exitFailed, []string{"verify", dir}, "restore a backup, or add the node to its group anew", "next: no repair heals all of this")
		expectParts(t, exitFailed, []string{"repair", "--yes", dir}, "cannot be repaired")
	}
}

// TestLostCommit: beside damage, committed entries that cannot be read are no matter of "nothing to do".
func TestLostCommit(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	wal := smallLog(t, dir, nil)
	must(t, wal.Save(&raftpb.HardState{Term: new(uint64(3)), Commit: new(uint64(18))}, nil, nil))
	must(t, wal.Close())
	must(t, os.Remove(filepath.Join(dir, "00002.wal")))
	_, out, _ := execute("verify", dir)
	if strings.Contains(out, "nothing to do") || !strings.Contains(out, "must not start without them") {
		t.Error(out)
	}
}

// TestLinkInPlaceOfAFile: the file may be where the link leads. No repair that would lose what it
// holds is offered.
func TestLinkInPlaceOfAFile(t *testing.T) {
	dir, elsewhere := closedLog(t, nil), filepath.Join(t.TempDir(), "00001.wal")
	must(t, os.Rename(filepath.Join(dir, "00001.wal"), elsewhere))
	must(t, os.Symlink(elsewhere, filepath.Join(dir, "00001.wal")))
	expectParts(t, exitFailed, []string{"verify", dir}, "this is a symbolic link", "put the file itself here", "next: no repair heals all of this")
	for _, how := range []string{"--dry-run", "--yes"} {
		expectParts(t, exitFailed, []string{"repair", dir, how}, "cannot be repaired; nothing was changed", "next: if it is a link, put the file itself here")
	}
	must(t, os.Rename(elsewhere, filepath.Join(dir, "00001.wal")))
	verified(t, exitOK, dir)
	must(t, os.Mkdir(filepath.Join(dir, "00009.wal"), 0o700))
	expectParts(t, exitOK, []string{"verify", dir}, "a directory under the name of an entry file")
	must(t, os.Rename(filepath.Join(dir, "wal.meta"), elsewhere))
	must(t, os.Symlink(elsewhere, filepath.Join(dir, "wal.meta")))
	for _, c := range []string{"verify", "info", "dump"} {
		if code, _, errs := execute(c, dir); code != exitNoLook || !strings.Contains(errs, "a symbolic link") {
			t.Errorf("%s: exit code %d: %s", c, code, errs)
		}
	}
}

// TestReadOnlyFileSystem: that says nothing of the log, as with a permission.
func TestReadOnlyFileSystem(t *testing.T) {
	if code := codeOf(failed(&os.PathError{Op: "open", Path: "wal.meta", Err: syscall.EROFS})); code != exitNoLook {
		t.Error(code)
	}
}

// TestDumpOfADamagedEnd: a dump that ends in front of damage says so.
func TestDumpOfADamagedEnd(t *testing.T) {
	for name, spoil := range map[string]func(dir string){
		"last record of a log in use": func(dir string) {
			flipByte(t, dir, "00002.wal", entryfile.DataStart+8*56+40)
		},
		"last file missing":   func(dir string) { must(t, os.Remove(filepath.Join(dir, "00002.wal"))) },
		"last file cut short": func(dir string) { must(t, os.Truncate(filepath.Join(dir, "00002.wal"), entryfile.DataStart+3*56)) },
		"last file emptied":   func(dir string) { must(t, os.Truncate(filepath.Join(dir, "00002.wal"), 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := crashedLog(t)
			spoil(dir)
			expectParts(t, exitFailed, []string{"dump", dir}, "the end of the log is damaged")
			if _, out, _ := execute("dump", "--json", dir); !strings.Contains(out, `"exit_code":1`) {
				t.Errorf("the last line does not say so:\n%s", out)
			}
		})
	}
}
