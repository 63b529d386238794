package demo

import (
	"os"
	"os/exec"
	"path/filepath"
)

// programName returns how a shell starts keyturn: by its path if it is beside this program and the
// PATH does not lead to it, otherwise by its name.
func programName() string {
	const name = "keyturn"
	self, err := os.Executable()
	if err != nil {
		return name
	}
	beside := filepath.Join(filepath.Dir(self), name+filepath.Ext(self))
	file, err := os.Stat(beside)
	if err != nil {
		return name
	}
	if found, err := exec.LookPath(name); err == nil && sameFile(found, file) {
		return name
	}
	if dir, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(dir, beside); err == nil && filepath.IsLocal(short) {
			return "." + string(filepath.Separator) + short
		}
	}
	return beside
}

func sameFile(path string, as os.FileInfo) bool {
	info, err := os.Stat(path)
	return err == nil && os.SameFile(info, as)
}
