package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fileState identifies a file and its content, so that a change is noticed.
type fileState struct {
	inode    uint64
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
	s := fileState{size: info.Size(), modified: info.ModTime(), mode: info.Mode().Perm()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode, s.uid, s.gid = uint64(sys.Ino), int(sys.Uid), int(sys.Gid)
	}
	return s, true
}

func userID(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return -1, fmt.Errorf("there is no user %q", name)
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1, fmt.Errorf("there is no group %q", name)
	}
	return strconv.Atoi(g.Gid)
}

// mountPoint reports whether a path is itself a mount point.
func mountPoint(path string) bool {
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && mounted(string(table), path)
}

// mounted looks a path up in the table of mounts, where spaces and the like are written as \040.
func mounted(table, path string) bool {
	path = strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == path {
			return true
		}
	}
	return false
}

func busy(err error) bool { return errors.Is(err, syscall.EBUSY) }

var signals = map[string]syscall.Signal{
	"HUP":   syscall.SIGHUP,
	"INT":   syscall.SIGINT,
	"QUIT":  syscall.SIGQUIT,
	"USR1":  syscall.SIGUSR1,
	"USR2":  syscall.SIGUSR2,
	"TERM":  syscall.SIGTERM,
	"WINCH": syscall.SIGWINCH,
}

func signalNamed(name string) (syscall.Signal, error) {
	s, ok := signals[strings.TrimPrefix(name, "SIG")]
	if !ok {
		return 0, errors.New("must be HUP, INT, QUIT, USR1, USR2, TERM or WINCH")
	}
	return s, nil
}

// ownGroup has a command killed with all that it has started.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
