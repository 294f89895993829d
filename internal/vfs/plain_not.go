//go:build !nofallocate

package vfs

const plainOnly = false
