package realdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// imageSizes are small, but not below what the file systems accept.
var imageSizes = map[string]int64{"ext4": 64 << 20, "xfs": 300 << 20, "btrfs": 128 << 20}

// memory mounts a tmpfs of at most size bytes, for images, until the test ends.
func memory(t *testing.T, size int64) string {
	t.Helper()
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)))
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// makeImage makes an empty file system in a sparse file.
func makeImage(t *testing.T, fs, name string, size int64) {
	t.Helper()
	f, err := os.Create(name)
	must(t, err)
	must(t, errors.Join(f.Truncate(size), f.Close()))
	args := map[string][]string{
		"ext4":  {"-q", "-F", "-b", "4096"}, // as on a large disk
		"xfs":   {"-q", "-f"},
		"btrfs": {"-q", "-f"},
	}[fs]
	if out, err := exec.Command("mkfs."+fs, append(args, name)...).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.%s: %v\n%s", fs, err, out)
	}
}

// Sizes of what a loop device writes in one go, in KiB. It calls a write done of
// which the file took only the first part. So the recorder has to be given what
// it takes at once, and a file on a tmpfs that may run full a page at a time.
const (
	maxWrite  = 512
	onePage   = 4
	sysfsName = "/sys/block/%s/queue/max_sectors_kb"
)

// attach puts a loop device on an image. The kernel frees the device when the
// last one to use it is gone: the file that is returned, or a mount.
func attach(image string, maxKiB int) (*os.File, error) {
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 100 {
		dev, err := attachFree(control, f)
		if err == nil {
			name := fmt.Sprintf(sysfsName, filepath.Base(dev.Name()))
			return dev, os.WriteFile(name, []byte(strconv.Itoa(maxKiB)), 0)
		}
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENXIO) {
			return nil, fmt.Errorf("loop device on %s: %w", image, err)
		}
		time.Sleep(time.Millisecond) // another process was faster
	}
	return nil, fmt.Errorf("loop device on %s: none is free", image)
}

func attachFree(control, f *os.File) (*os.File, error) {
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	dev, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	config := unix.LoopConfig{Fd: uint32(f.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
	if err := unix.IoctlLoopConfigure(int(dev.Fd()), &config); err != nil {
		_ = dev.Close()
		return nil, err
	}
	return dev, nil
}

// mountImage mounts an image at dir. Two of the same origin may be mounted at
// the same time, which xfs has to be told.
func mountImage(fs, image, dir string) error { return mountIn(fs, image, dir, maxWrite) }

func mountIn(fs, image, dir string, maxKiB int) error {
	dev, err := attach(image, maxKiB)
	if dev != nil {
		defer dev.Close()
	}
	if err != nil {
		return err
	}
	options := map[string]string{"xfs": "nouuid"}[fs]
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(dev.Name(), dir, fs, 0, options); err != nil {
		return fmt.Errorf("mount %s: %w", fs, err)
	}
	return nil
}

// mounted mounts an image until the test ends, or unmount is called.
func mounted(t *testing.T, fs, image string) (dir string) {
	t.Helper()
	return mountedIn(t, fs, image, maxWrite)
}

func mountedIn(t *testing.T, fs, image string, maxKiB int) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "mnt")
	must(t, mountIn(fs, image, dir, maxKiB))
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// unmount unmounts dir, if it is mounted. What is busy for long is detached, and
// goes with its last user.
func unmount(t *testing.T, dir string) {
	t.Helper()
	for wait := time.Millisecond; wait < 3*time.Second; wait *= 2 {
		err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
		if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return
		}
		time.Sleep(wait)
	}
	t.Errorf("%s is busy; detached: %v", dir, unix.Unmount(dir, unix.MNT_DETACH))
}
