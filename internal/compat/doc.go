// Package compat keeps logs that each version of the format wrote, and tests that
// this version opens them, shows what they hold, and goes on with them.
//
// testdata/format-N holds those of version N: each an archive of a directory, with
// what the version that wrote it read from it as JSON beside. UPDATE=1 go test
// ./internal/compat writes those of the present version anew; plain logs get the
// same bytes again from the same code. It refuses where there is a file RELEASED,
// which a release puts there: then the format is fixed.
package compat
