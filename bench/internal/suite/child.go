package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
)

// childEnv has, in a process that is to be killed, which contender's log it fills.
const childEnv = "RAFTWAL_BENCH_CHILD"

// Child makes this process one that fills a log and kills itself, if Run has started
// it for that; if not, it does nothing. It has to be called before all else.
func Child() {
	name := os.Getenv(childEnv)
	if name == "" {
		return
	}
	err := fillAndDie(name, os.Args[1], os.Args[2], os.Args[3])
	fmt.Fprintln(os.Stderr, "not killed:", err)
	os.Exit(1)
}

func fillAndDie(name, dir, entries, fileBytes string) error {
	count, err1 := strconv.ParseUint(entries, 10, 64)
	size, err2 := strconv.ParseInt(fileBytes, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	all := contender.All()
	k := slices.IndexFunc(all, func(c contender.Contender) bool { return c.Name == name })
	if k < 0 {
		return fmt.Errorf("no contender is called %q", name)
	}
	l, err := all[k].Open(dir, contender.Options{FileBytes: size})
	if err != nil {
		return err
	}
	r := newRunner(&Config{}, dir)
	if _, err := r.fill(l, count, growthSize); err != nil {
		return err
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// fillKilled has a process fill a log of c in dir with synced saves; it is killed
// then.
func (r *runner) fillKilled(c contender.Contender, dir string, entries int) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), program, dir, strconv.Itoa(entries), strconv.FormatInt(r.cfg.FileBytes, 10))
	cmd.Env = append(os.Environ(), childEnv+"="+c.Name)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return nil
	}
	return fmt.Errorf("a process that fills a log: %w: %s", err, out)
}
