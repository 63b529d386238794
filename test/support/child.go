package support

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// RunWithKeyturn builds the program, sets binary to its path and runs the tests. A TestMain exits
// with what it returns.
func RunWithKeyturn(m *testing.M, binary *string) int {
	return RunWithBinary(m, binary, "github.com/keyturn/keyturn/cmd/keyturn")
}

// RunWithBinary is [RunWithKeyturn] for any command of the module. The binary has no race detector.
func RunWithBinary(m *testing.M, binary *string, pkg string) int {
	dir, err := os.MkdirTemp("", "keyturn-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*binary = filepath.Join(dir, "keyturn")
	build := exec.Command("go", "build", "-o", *binary, pkg)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "go build:", err)
		return 1
	}
	return m.Run()
}

// Child is a process that a test has started. It ends with the test at the latest.
type Child struct {
	*exec.Cmd
	Stdin io.WriteCloser
	Log   Log // what it writes to standard error
	// Exited is closed when the process has ended and all its output was read.
	Exited chan struct{}
	// Err is how it ended; it is set before Exited is closed.
	Err error
}

// StartChild starts a process. line gets the lines of its standard output one after the other. The
// process does not see the variable of [Seed]: Keyturn refuses variables that it does not know.
func StartChild(t testing.TB, cmd *exec.Cmd, line func(string)) *Child {
	t.Helper()
	c := &Child{Cmd: cmd, Exited: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &lines{each: line}, &c.Log
	cmd.WaitDelay = time.Second // for what it has started itself and what keeps its output open
	cmd.Env = slices.DeleteFunc(cmd.Environ(), func(v string) bool { return strings.HasPrefix(v, seedVariable+"=") })
	var err error
	if c.Stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.Exited)
		c.Err = cmd.Wait()
	}()
	t.Cleanup(c.Kill)
	return c
}

// StartSelf starts the binary of this test once more, with more variables ("name=value") in its
// environment. TestMain recognizes the child by them.
func StartSelf(t testing.TB, variables []string, line func(string)) *Child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), variables...)
	return StartChild(t, cmd, line)
}

// Await waits until ready is closed. It fails the test when the process ends before, and after
// [Patience].
func (c *Child) Await(t testing.TB, ready <-chan struct{}) {
	t.Helper()
	select {
	case <-ready:
	case <-c.Exited:
		t.Fatalf("the process has ended with %v before it was ready:\n%s", c.Err, c.Log.Tail())
	case <-time.After(Patience):
		t.Fatalf("the process is not ready after %v:\n%s", Patience, c.Log.Tail())
	}
}

// Running reports whether the process has not ended.
func (c *Child) Running() bool {
	select {
	case <-c.Exited:
		return false
	default:
		return true
	}
}

// Kill ends the process by SIGKILL, if it still runs, and waits for its end.
func (c *Child) Kill() {
	_ = c.Process.Kill() // fails when it has ended
	<-c.Exited
}

// Stop ends a process that stops when its standard input ends, and fails the test when it does not.
func (c *Child) Stop(t testing.TB) {
	t.Helper()
	_ = c.Stdin.Close()
	select {
	case <-c.Exited:
	case <-time.After(Patience):
		t.Fatalf("the process does not stop:\n%s", c.Log.Tail())
	}
}

// lines passes on what is written to it line by line.
type lines struct {
	each func(string)
	rest []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte{'\n'})
		if !whole {
			return len(p), nil
		}
		l.rest = rest
		l.each(string(line))
	}
}
