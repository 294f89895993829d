//go:build darwin || freebsd

package diskbench

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync is F_FULLFSYNC on darwin.
func datasync(f *os.File) error { return f.Sync() }

// systems are the file systems whose sync says little about a disk, and why.
var systems = map[string]string{
	"tmpfs": inMemory, "nfs": overNetwork, "smbfs": overNetwork, "afpfs": overNetwork, "webdav": overNetwork,
	"p9fs": overNetwork, "macfuse": inProgram, "fusefs": inProgram, "unionfs": inContainer, "nullfs": inContainer,
}

func describe(stat *unix.Statfs_t) (name, why string) {
	name = unix.ByteSliceToString(stat.Fstypename[:])
	return name, systems[name]
}
