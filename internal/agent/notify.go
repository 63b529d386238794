package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxAttempts  = 100
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// notifier notifies a program that a file has changed.
type notifier struct {
	Hook
	signal   syscall.Signal
	pause    time.Duration // before the second attempt; 0 means firstPause
	notified bool          // since the start of the agent
}

func (h *Hook) check(at string, m *mistakes) *notifier {
	n := &notifier{Hook: *h}
	var err error
	switch {
	case (h.Signal != "") == (len(h.Command) > 0):
		m.add(at, "set exactly one of signal, command")
	case h.Signal != "" && h.PIDFile == "":
		m.add(at+".pid_file", "is required with signal: the file that holds the number of the process")
	case h.Signal != "" && !filepath.IsAbs(h.PIDFile):
		m.add(at+".pid_file", "must be an absolute path")
	case h.Signal == "" && h.PIDFile != "":
		m.add(at+".pid_file", "is for signal, which is not set")
	case h.Executable != "" && !filepath.IsAbs(h.Executable):
		m.add(at+".executable", "must be an absolute path")
	case h.Signal != "":
	case h.Signal == "" && h.Executable != "":
		m.add(at+".executable", "is for signal, which is not set")
	case !filepath.IsAbs(h.Command[0]):
		m.add(at+".command[0]", "must be an absolute path")
	default:
		if info, err := os.Stat(h.Command[0]); err != nil {
			m.add(at+".command[0]", "%v", err)
		} else if info.IsDir() || info.Mode()&0o111 == 0 {
			m.add(at+".command[0]", "%s is not executable", h.Command[0])
		}
	}
	if h.Signal != "" {
		if n.signal, err = signalNamed(h.Signal); err != nil {
			m.add(at+".signal", "%v", err)
		}
	}
	if n.Attempts < 1 || n.Attempts > maxAttempts {
		m.add(at+".attempts", "must be 1 to %d", maxAttempts)
	}
	return n
}

// errGaveUp is returned after the last attempt for one change.
var errGaveUp = errors.New("the file is written, but its program could not be notified")

// errInterrupted is returned when the file must be checked again before the next attempt.
var errInterrupted = errors.New("the file is written, but its program could not be notified yet")

// noProgramYet reports whether an error means that the program has not started since the agent has.
// A program often needs the file before it can start, so its pid_file appears later; it then reads
// the file as it is.
func (n *notifier) noProgramYet(err error) bool {
	return n.Signal != "" && !n.notified && errors.Is(err, fs.ErrNotExist)
}

// notifyProgram tries until the program was notified or the attempts are used up. A newer change,
// on wake, ends the wait between two attempts, because the file is then written again first.
func (n *notifier) notifyProgram(ctx context.Context, path string, wake chan struct{}) error {
	pause := cmp.Or(n.pause, firstPause)
	for attempt := 1; ; attempt++ {
		err := n.once(ctx, path)
		if err == nil {
			n.notified = true
			return nil
		}
		if attempt >= n.Attempts {
			return fmt.Errorf("%w %d times: %w", errGaveUp, attempt, err)
		}
		t := time.NewTimer(pause/2 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-wake:
			t.Stop()
			select { // for run, which looks anew
			case wake <- struct{}{}:
			default:
			}
			return fmt.Errorf("%w: %w", errInterrupted, err)
		case <-t.C:
		}
		pause = min(2*pause, longestPause)
	}
}

func (n *notifier) once(ctx context.Context, path string) error {
	if n.Signal != "" {
		return n.send()
	}
	ctx, cancel := context.WithTimeout(ctx, n.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.Command[0], n.Command[1:]...)
	cmd.Env = append(plainEnvironment(), "KEYTURN_FILE="+path)
	cmd.WaitDelay = time.Second
	ownGroup(cmd)
	err := cmd.Run() // what it prints is dropped: it may show the file
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return fmt.Errorf("command %s did not end within %s", n.Command[0], n.Timeout)
	case err != nil:
		return fmt.Errorf("command %s: %w", n.Command[0], err)
	}
	return nil
}

// plainEnvironment is what a command gets of the agent's own environment, which may hold an access
// key.
func plainEnvironment() []string {
	var out []string
	for _, name := range []string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"} {
		if v, ok := os.LookupEnv(name); ok {
			out = append(out, name+"="+v)
		}
	}
	return out
}

// maxPIDFile bounds what is read of a pid_file.
const maxPIDFile = 64

// send sends the signal to the process that the file names, if that is a process of the user who
// wrote the file. The user of an application may own the file and put any number into it; a signal
// that they could not send themselves is not sent for them. A file of root, in a directory where
// only root can write, may name any process.
func (n *notifier) send() error {
	data, stat, err := readIn(n.PIDFile, maxPIDFile)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) { // which has the last element of the path alone
			err = at.Err
		}
		return fmt.Errorf("pid_file %s: %w", n.PIDFile, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return fmt.Errorf("pid_file: %s does not hold the number of a process", n.PIDFile)
	}
	owner := int(stat.Uid)
	if owner == 0 && (stat.Nlink != 1 || !n.rootsDirectory()) {
		return fmt.Errorf(
			"pid_file: %s belongs to root and is in a directory where others may write, who may have put it there", n.PIDFile)
	}
	err = signalProcess(pid, n.signal, func() error { return n.checkProcess(pid, owner) })
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("there is no process %d, which %s names", pid, n.PIDFile)
	}
	if err != nil {
		return fmt.Errorf("signal %s to process %d: %w", n.Signal, pid, err)
	}
	return nil
}

func (n *notifier) rootsDirectory() bool {
	d, err := openDirectory(filepath.Dir(n.PIDFile))
	if err != nil {
		return false
	}
	defer d.close()
	return d.onlyOurs()
}

// checkProcess refuses a process that the owner of the pid_file has no business with.
func (n *notifier) checkProcess(pid, owner int) error {
	if owner != 0 {
		user, err := userOf(pid)
		if err != nil {
			return err
		}
		if user != owner {
			return fmt.Errorf("it belongs to user %d, and %s to user %d: it is not signalled", user, n.PIDFile, owner)
		}
	}
	if n.Executable == "" {
		return nil
	}
	same, err := runs(pid, n.Executable)
	if err == nil && !same {
		err = fmt.Errorf("it does not run %s: it is not signalled", n.Executable)
	}
	return err
}
