//go:build !unix

package agent

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"syscall"
	"time"
)

var errUnix = errors.New("this needs Unix")

type fileState struct {
	size     int64
	modified time.Time
	mode     fs.FileMode
	uid, gid int
}

func stateOf(path string) (fileState, bool) {
	info, err := os.Lstat(path)
	if err != nil {
		return fileState{}, false
	}
	return fileState{size: info.Size(), modified: info.ModTime(), mode: info.Mode().Perm()}, true
}

func userID(string) (int, error)  { return -1, errUnix }
func groupID(string) (int, error) { return -1, errUnix }
func mountPoint(string) bool      { return false }
func busy(error) bool             { return false }

func signalNamed(string) (syscall.Signal, error) { return 0, errUnix }
func sendSignal(int, syscall.Signal) error       { return errUnix }
func ownGroup(*exec.Cmd)                         {}
