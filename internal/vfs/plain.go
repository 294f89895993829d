//go:build nofallocate

package vfs

// plainOnly has all tests run as where the file system lacks what Plain says.
const plainOnly = true
