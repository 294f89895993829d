package diskbench

import (
	"os"

	"golang.org/x/sys/unix"
)

func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// systems are the file systems whose sync says little about a disk, and why.
var systems = map[uint32]struct{ name, why string }{
	unix.TMPFS_MAGIC:           {"tmpfs", inMemory},
	unix.RAMFS_MAGIC:           {"ramfs", inMemory},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlay", inContainer},
	unix.NFS_SUPER_MAGIC:       {"nfs", overNetwork},
	unix.SMB_SUPER_MAGIC:       {"smb", overNetwork},
	unix.SMB2_SUPER_MAGIC:      {"smb", overNetwork},
	unix.CIFS_SUPER_MAGIC:      {"cifs", overNetwork},
	unix.CEPH_SUPER_MAGIC:      {"ceph", overNetwork},
	unix.AFS_SUPER_MAGIC:       {"afs", overNetwork},
	unix.CODA_SUPER_MAGIC:      {"coda", overNetwork},
	unix.V9FS_MAGIC:            {"9p", overNetwork},
	unix.FUSE_SUPER_MAGIC:      {"fuse", inProgram},
}

// names are those of file systems on disks.
var names = map[uint32]string{
	unix.EXT4_SUPER_MAGIC:     "ext4",
	unix.XFS_SUPER_MAGIC:      "xfs",
	unix.BTRFS_SUPER_MAGIC:    "btrfs",
	unix.F2FS_SUPER_MAGIC:     "f2fs",
	unix.BCACHEFS_SUPER_MAGIC: "bcachefs",
	0x2fc12fc1:                "zfs",
}

func describe(stat *unix.Statfs_t) (name, why string) {
	kind := uint32(stat.Type)
	if s, ok := systems[kind]; ok {
		return s.name, s.why
	}
	return names[kind], ""
}
