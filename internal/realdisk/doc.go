// Package realdisk proves, on the kernel's own ext4, xfs and btrfs, that the log
// loses nothing it has acknowledged. It holds tests only. They need root, Linux,
// loop devices, /dev/fuse, and mkfs.ext4, mkfs.xfs and mkfs.btrfs:
//
//	REALDISK=required go test -count=1 -v ./...
//
// Without root or a tool they are skipped with a line that says what is missing;
// REALDISK=required makes that a failure. SEED=n repeats the choices of a run
// (not the kernel's), N=n sets the number of power cuts per file system and
// COPIES=n that of point-in-time copies.
//
//   - TestPowerCut: a process saves to a file system on a loop device whose image
//     is a file of a FUSE file system, which notes every write and every flush
//     and when each call was acknowledged. The power is cut at any point of that
//     record: what was flushed is there, of the rest any subset of the sectors.
//     The kernel mounts the image, the engine opens the log, and what it shows
//     must be what was acknowledged, or an outcome of the call under way. The
//     next record begins with what a cut has left, so recovery is cut as well.
//   - TestLyingDisk: the same with a disk that forgets what was flushed since a
//     Save was begun. The harness has to find each loss, or it would find none.
//   - TestFrozenCopy: the image is copied at any moment, while the file system
//     it lies on is frozen.
//   - TestDiskFull: ErrNoSpace changes nothing, and saving goes on with room.
//   - TestWriteback: the device under the file system fails to write, for good or
//     once. The first Save that fails is the last one, and nothing acknowledged
//     is lost: neither when the file system is mounted anew, nor when the log is
//     opened again while the kernel still shows what the device does not hold.
//   - TestCutShort: a file is truncated under a running process.
//
// The table at the end has a line for each test and file system: power cuts,
// images that differ, calls acknowledged at a cut (the mean), logs that were open
// when the power went, bytes of torn tails, and images found to lack something.
// That last column is to be zero, but for the lying disk.
//
// What is assumed:
//
//   - The disk writes a sector of 512 bytes whole or not at all. A superblock of
//     btrfs, ext4 or its journal is written whole, since these file systems
//     cannot do without that (ext4 refuses to be mounted with a torn one).
//   - The loop driver hands each write and flush of the file system to the file
//     of the image, with a flush after each write marked FUA (it offers no FUA of
//     its own, so the block layer does that). That flushes come through is checked
//     with every Save. The recorder answers one request at a time, so a flush
//     covers what was written before it.
//   - The loop driver calls a write done of which the file took only the first
//     part (Linux 6.18 does). Such a device loses what it has acknowledged, and no
//     log can help that; so what is written in one go is kept small enough here
//     to be taken whole or not at all.
//
// Everything is mounted in a mount namespace of its own, and loop devices clear
// themselves: when the tests end, by a kill even, the kernel takes all away.
package realdisk
