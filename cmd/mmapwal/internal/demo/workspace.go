package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// workspace is the directory of a run, and what of it the run made.
type workspace struct {
	dir  string
	logs []string // the directories of the nodes
	made []string // directories that were missing, the outermost first
}

// newWorkspace makes what is missing of dir; a temporary one for "". It refuses a
// directory in which a node has a log already.
func newWorkspace(dir string) (*workspace, error) {
	w := &workspace{}
	if err := w.make(dir); err != nil {
		return nil, errors.Join(err, w.remove())
	}
	for id := 1; id <= nodes; id++ {
		log := filepath.Join(w.dir, fmt.Sprintf("node%d", id))
		if _, err := os.Lstat(log); !errors.Is(err, fs.ErrNotExist) {
			return nil, errors.Join(refuse(log, err), w.remove())
		}
	}
	for id := 1; id <= nodes; id++ {
		w.logs = append(w.logs, filepath.Join(w.dir, fmt.Sprintf("node%d", id)))
	}
	return w, nil
}

func refuse(path string, err error) error {
	if err != nil {
		return fmt.Errorf("look for earlier logs: %w", err)
	}
	return configErrorf("%s is there already; give a directory without node1 to node%d, or remove them", path, nodes)
}

// make makes the directory and those around it that are missing.
func (w *workspace) make(dir string) (err error) {
	if dir == "" {
		w.dir, err = os.MkdirTemp("", "mmapwal-demo-")
		if err != nil {
			return fmt.Errorf("make a temporary directory: %w", err)
		}
		w.made = []string{w.dir}
		return nil
	}
	if w.dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	var missing []string
	for d := w.dir; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], 0o700); err != nil {
			return fmt.Errorf("make the directory: %w", err)
		}
		w.made = append(w.made, missing[i])
	}
	info, err := os.Stat(w.dir)
	if err != nil {
		return fmt.Errorf("make the directory: %w", err)
	}
	if !info.IsDir() {
		return configErrorf("%s is not a directory", w.dir)
	}
	return nil
}

// remove removes what the run made. What others put there meanwhile stays.
func (w *workspace) remove() error {
	var errs []error
	for _, log := range w.logs {
		errs = append(errs, os.RemoveAll(log))
	}
	for i := len(w.made) - 1; i >= 0; i-- {
		if entries, err := os.ReadDir(w.made[i]); err != nil || len(entries) > 0 {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, os.Remove(w.made[i]))
	}
	return errors.Join(errs...)
}
