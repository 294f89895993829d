//go:build !race

package repair

const stride = 9 // of the operations, unless all are asked for
