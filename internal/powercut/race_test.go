//go:build race

package powercut_test

const underRace = true
