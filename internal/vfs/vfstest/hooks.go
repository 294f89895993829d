package vfstest

import (
	"slices"
	"sync/atomic"
	"syscall"
)

// FailNth returns a hook that lets the n-th operation, counted from 1, fail with
// errno, and no other. If ops are given it counts only those.
func FailNth(n int, errno syscall.Errno, ops ...Op) Hook {
	return failIf(errno, func(seen int) bool { return seen == n }, ops)
}

// FailFrom returns a hook that lets the n-th operation and all later ones fail
// with errno: what a disk does that is gone, and nearly what a process does that
// is killed there. If ops are given it counts, and fails, only those.
func FailFrom(n int, errno syscall.Errno, ops ...Op) Hook {
	return failIf(errno, func(seen int) bool { return seen >= n }, ops)
}

func failIf(errno syscall.Errno, fails func(seen int) bool, ops []Op) Hook {
	var seen atomic.Int64
	return func(op Op, name string) error {
		if len(ops) > 0 && !slices.Contains(ops, op) {
			return nil
		}
		if !fails(int(seen.Add(1))) {
			return nil
		}
		return Error(op, name, errno)
	}
}

// Switch is a hook whose work can be changed while files are open. The zero
// Switch does nothing.
type Switch struct{ hook atomic.Pointer[Hook] }

// Set makes hook, which may be nil, the one that is asked from now on.
func (s *Switch) Set(hook Hook) {
	if hook == nil {
		s.hook.Store(nil)
		return
	}
	s.hook.Store(&hook)
}

// Before asks the current hook. Pass it to New.
func (s *Switch) Before(op Op, name string) error {
	if hook := s.hook.Load(); hook != nil {
		return (*hook)(op, name)
	}
	return nil
}
