package corrupt

import (
	"errors"
	"testing"
)

func TestError(t *testing.T) {
	tests := []struct {
		err  *Error
		want string
	}{
		{At("f", 8, "%d bytes", 3), "the log is corrupt: f, offset 8: 3 bytes"},
		{&Error{File: "f", First: 5, Last: 5, Reason: "r"}, "the log is corrupt: f, offset 0, entry 5: r"},
		{&Error{File: "f", First: 5, Last: 6, Reason: "r"}, "the log is corrupt: f, offset 0, entries 5 to 6: r"},
	}
	for _, test := range tests {
		if got := test.err.Error(); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
		if !errors.Is(test.err, Err) {
			t.Errorf("%v does not wrap Err", test.err)
		}
	}
}

func TestBoth(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	if got := Both(a, a); got != "a" {
		t.Error(got)
	}
	if got := Both(a, b); got != "a; b" {
		t.Error(got)
	}
}
