package realdisk

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// event is a write that reached the disk, or a flush, which has no data.
type event struct {
	off  int64
	data []byte
}

func (e *event) isFlush() bool { return e.data == nil }

// recorder is the file of a FUSE file system. It keeps an image, and a record
// of all that is done to it.
type recorder struct {
	fs.Inode
	image *os.File
	size  int64

	mu     sync.Mutex
	events []event
	failAt int // so many writes from now on one fails; 0: none
}

var (
	_ fs.NodeGetattrer = (*recorder)(nil)
	_ fs.NodeOpener    = (*recorder)(nil)
	_ fs.NodeReader    = (*recorder)(nil)
	_ fs.NodeWriter    = (*recorder)(nil)
	_ fs.NodeFsyncer   = (*recorder)(nil)
)

// newRecorder mounts a FUSE file system with one file, which has the content of
// image, and returns the path of that file.
func newRecorder(t *testing.T, image string) (*recorder, string) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	info, err := f.Stat()
	must(t, err)
	r := &recorder{image: f, size: info.Size()}
	dir := t.TempDir()
	root := &fs.Inode{}
	server, err := fs.Mount(dir, root, &fs.Options{
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk", root.NewPersistentInode(ctx, r, fs.StableAttr{Mode: syscall.S_IFREG}), true)
		},
		// One request at a time: a flush finds all done that came before it.
		MountOptions: fuse.MountOptions{DirectMountStrict: true, SingleThreaded: true, MaxWrite: 1 << 20, Name: "recorder"},
	})
	must(t, err)
	t.Cleanup(func() { unmount(t, dir); server.Wait() })
	return r, filepath.Join(dir, "disk")
}

// where returns how many events there were.
func (r *recorder) where() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.events)
}

// record returns the events up to now.
func (r *recorder) record() []event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// failWrite makes write n from now on fail, and only that one.
func (r *recorder) failWrite(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failAt = n
}

// copyTo copies the image as it is at one moment.
func (r *recorder) copyTo(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return copyImage(name, r.image)
}

func (r *recorder) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = 0o600, uint64(r.size)
	return 0
}

// Open bypasses the page cache: what the loop device writes comes here at once.
func (r *recorder) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (r *recorder) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if _, err := r.image.ReadAt(dest, off); err != nil {
		return nil, syscall.EIO
	}
	return fuse.ReadResultData(dest), 0
}

func (r *recorder) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failAt > 0 {
		if r.failAt--; r.failAt == 0 {
			return 0, syscall.ENOSPC
		}
	}
	if _, err := r.image.WriteAt(data, off); err != nil {
		return 0, syscall.EIO
	}
	r.events = append(r.events, event{off, slices.Clone(data)})
	return uint32(len(data)), 0
}

func (r *recorder) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{})
	return 0
}
