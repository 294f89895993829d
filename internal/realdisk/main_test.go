package realdisk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// roleEnv says what a process of this test binary is to do: nothing is the one
// that was started by hand.
const roleEnv = "REALDISK_ROLE"

var fileSystems = []string{"ext4", "xfs", "btrfs"}

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "inside":
		fmt.Println(versions())
		code := m.Run()
		fmt.Print(results)
		os.Exit(code)
	case "saver":
		saver(os.Args[1])
		os.Exit(0)
	case "truncater":
		truncater(os.Args[1])
		os.Exit(0)
	case "waiter":
		waiter(os.Args[1])
		os.Exit(0)
	case "thawer":
		thawer(os.Args[1])
		os.Exit(0)
	}
	if what := missing(); what != "" {
		fmt.Println("realdisk: nothing was tested:", what)
		if os.Getenv("REALDISK") == "required" {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(inside())
}

// missing says what the tests need and do not find, "" if nothing.
func missing() string {
	if os.Geteuid() != 0 {
		return "root is needed to mount file systems"
	}
	for _, name := range []string{"/dev/fuse", "/dev/loop-control"} {
		if _, err := os.Stat(name); err != nil {
			return err.Error()
		}
	}
	known, err := os.ReadFile("/proc/filesystems")
	for _, fs := range fileSystems {
		if _, missing := exec.LookPath("mkfs." + fs); missing != nil {
			return fmt.Sprintf("%v (packages e2fsprogs, xfsprogs, btrfs-progs)", missing)
		}
		// A module may be there that is loaded by the first mount.
		if err == nil && !strings.Contains(string(known), "\t"+fs+"\n") && exec.Command("modprobe", fs).Run() != nil {
			return "the kernel does not know " + fs
		}
	}
	return ""
}

// inside runs this binary again in a mount namespace of its own: whatever ends
// it, the kernel unmounts all, and so frees the loop devices.
func inside() int {
	runtime.LockOSThread() // the death signal is that of the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), roleEnv+"=inside")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Println("realdisk:", err)
		return 1
	}
	return 0
}

// versions names the kernel and the tools, on which the proof depends.
func versions() string {
	var name unix.Utsname
	_ = unix.Uname(&name)
	lines := []string{"kernel " + unix.ByteSliceToString(name.Release[:])}
	for _, command := range [][]string{{"mkfs.ext4", "-V"}, {"mkfs.xfs", "-V"}, {"mkfs.btrfs", "-V"}} {
		out, _ := exec.Command(command[0], command[1:]...).CombinedOutput()
		first, _, _ := strings.Cut(string(out), "\n")
		lines = append(lines, first)
	}
	return "realdisk: " + strings.Join(lines, "; ")
}

// seedOf returns the seed of a test; SEED sets it.
func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(envInt(t, "SEED", int(rand.Uint32())))
	t.Logf("SEED=%d", seed)
	return seed
}

// envInt returns the number that an environment variable holds.
func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s=%s: %v", name, s, err)
	}
	return n
}

// each runs a test on every file system.
func each(t *testing.T, test func(t *testing.T, fs string)) {
	t.Helper()
	for _, fs := range fileSystems {
		t.Run(fs, func(t *testing.T) { test(t, fs) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
