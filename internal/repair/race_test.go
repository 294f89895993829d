//go:build race

package repair

const stride = 23 // the race detector is slow
