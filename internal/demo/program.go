package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programName is how a shell starts this program: by name when the PATH leads to it, otherwise by path.
func programName() string {
	const name = "keyturn"
	self, err := os.Executable()
	if err != nil || strings.TrimSuffix(filepath.Base(self), ".exe") != name {
		return name
	}
	if found, err := exec.LookPath(name); err == nil && sameFile(found, self) {
		return name
	}
	if dir, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(dir, self); err == nil && filepath.IsLocal(short) {
			return "." + string(filepath.Separator) + short
		}
	}
	return self
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}
