package agent

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

// ran is a program of a test under way.
type ran struct {
	world   *still
	changed chan struct{}
	out     func() string
	log     *support.Log
	code    chan int
	err     chan error
}

// runChild runs a shell script. Its output goes to a file, which out reads.
func runChild(t *testing.T, script string, change func(c *child)) *ran {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	r := &ran{
		world:   &still{},
		changed: make(chan struct{}, 1),
		log:     &support.Log{},
		code:    make(chan int, 1),
		err:     make(chan error, 1),
	}
	r.out = func() string { return read(t, file.Name()) }
	r.world.put(value("db", "v1", `{"Password":"one"}`))
	c := &child{
		args:     []string{"sh", "-c", script},
		base:     []string{"PATH=" + os.Getenv("PATH")},
		secrets:  []EnvSecret{{"db", "DB_"}},
		world:    r.world,
		changed:  r.changed,
		onChange: "restart",
		grace:    10 * time.Second,
		files:    []uintptr{null.Fd(), file.Fd(), file.Fd()},
		log:      slog.New(slog.NewTextHandler(r.log, nil)),
		pause:    time.Millisecond,
	}
	if change != nil {
		change(c)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		code, err := c.run(t.Context())
		r.code <- code
		r.err <- err
	}()
	t.Cleanup(func() {
		<-done
		file.Close()
		null.Close()
	})
	return r
}

// await waits until the output holds a text.
func (r *ran) await(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(r.out(), text); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("output %q: waited in vain for %q", r.out(), text)
		}
	}
}

func (r *ran) ends(t *testing.T) int {
	t.Helper()
	select {
	case code := <-r.code:
		if err := <-r.err; err != nil {
			t.Errorf("run: %v", err)
		}
		return code
	case <-time.After(20 * time.Second):
		t.Fatalf("the program does not end; output %q", r.out())
		return 0
	}
}

func (r *ran) change(v Value) {
	r.world.put(v)
	r.changed <- struct{}{}
}

func TestChildExitCode(t *testing.T) {
	t.Parallel()
	for script, want := range map[string]int{"exit 0": 0, "exit 7": 7, "kill -TERM $$": 143, "kill -KILL $$": 137} {
		if got := runChild(t, script, nil).ends(t); got != want {
			t.Errorf("%s: exit code %d, want %d", script, got, want)
		}
	}
}

func TestChildNotFound(t *testing.T) {
	t.Parallel()
	plain := write(t, filepath.Join(t.TempDir(), "plain"), "#!/bin/sh\n")
	for path, want := range map[string]int{"no-such-program": 127, "/no/such/program": 127, plain: 126} {
		err := (&child{args: []string{path}}).find()
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != want {
			t.Errorf("%s: %v, want code %d", path, err, want)
		}
	}
}

// TestChildRestart verifies that a change ends the program and starts it with the new value, that
// the server learns of a version only once the program has it, and that the value is in no argument
// and no log.
func TestChildRestart(t *testing.T) {
	t.Parallel()
	r := runChild(t, `trap 'echo stopping; exit 3' TERM
		echo "started $DB_PASSWORD"
		while :; do sleep 0.01; test $DB_PASSWORD = three && exit 9; done`, nil)
	r.await(t, "started one\n")
	if got := r.world.holds(); got != "map[db v1:1]" {
		t.Errorf("holds %s", got)
	}
	r.change(value("db", "v2", `{"Password":"two"}`))
	r.await(t, "stopping\nstarted two\n")
	if got := r.world.holds(); got != "map[db v2:1]" {
		t.Errorf("holds %s, want the version that the program has", got)
	}
	// Another version of the same content is no reason to restart.
	r.change(value("db", "v3", `{"Password":"two"}`))
	await(t, func() bool { return r.world.holds() == "map[db v3:1]" })
	// Without a complete environment the program goes on.
	r.change(value("db", "v4", "text\x00"))
	await(t, func() bool { return strings.Contains(r.log.String(), "left as it is") })
	r.change(value("db", "v5", `{"Password":"three"}`))
	if code := r.ends(t); code != 9 {
		t.Errorf("exit code %d, want the program's own 9", code)
	}
	if got := r.out(); got != "started one\nstopping\nstarted two\nstopping\nstarted three\n"+strings.Repeat(
		"started three\n", maxRestarts) {
		t.Errorf("output %q", got)
	}
	if strings.Contains(r.log.String(), "three") || r.world.holds() != "map[]" {
		t.Errorf("log %s, holds %s", r.log, r.world.holds())
	}
}

func await(t *testing.T, ok func() bool) {
	t.Helper()
	support.Until(t, "what the test expects", ok)
}

// TestChildBackOff verifies that a program that ends at once after its restart is started again, a
// bounded number of times, and one that was not restarted is not.
func TestChildBackOff(t *testing.T) {
	t.Parallel()
	r := runChild(t, `trap 'exit 0' TERM
		echo "started $DB_PASSWORD"
		test $DB_PASSWORD = two && exit 5
		while :; do sleep 0.01; done`, nil)
	r.await(t, "started one\n")
	r.change(value("db", "v2", `{"Password":"two"}`))
	if code := r.ends(t); code != 5 {
		t.Errorf("exit code %d, want 5", code)
	}
	if got := strings.Count(r.out(), "started two"); got != 1+maxRestarts {
		t.Errorf("started %d times, want %d", got, 1+maxRestarts)
	}
}

// TestChildKilled verifies that a program which does not end in time is killed.
func TestChildKilled(t *testing.T) {
	t.Parallel()
	r := runChild(t, `trap '' TERM
		echo "started $DB_PASSWORD"
		test $DB_PASSWORD = two && exit 0
		while :; do sleep 0.01; done`, func(c *child) { c.grace = 50 * time.Millisecond })
	r.await(t, "started one\n")
	r.change(value("db", "v2", `{"Password":"two"}`))
	if code := r.ends(t); code != 0 || !strings.Contains(r.out(), "started two") {
		t.Errorf("exit code %d, output %q", code, r.out())
	}
}

func TestChildSignalled(t *testing.T) {
	t.Parallel()
	usr1, err := signalNamed("USR1") // HUP may be ignored here, as under nohup, and then is in the program
	if err != nil {
		t.Fatal(err)
	}
	r := runChild(t, `trap 'echo told; exit 4' USR1; echo "started $DB_PASSWORD"; while :; do sleep 0.01; done`,
		func(c *child) { c.onChange, c.signal = "signal", usr1 })
	r.await(t, "started one\n")
	r.change(value("db", "v2", `{"Password":"two"}`))
	if code := r.ends(t); code != 4 || r.out() != "started one\ntold\n" {
		t.Errorf("exit code %d, output %q", code, r.out())
	}
}

func TestChildIgnores(t *testing.T) {
	t.Parallel()
	stop := filepath.Join(t.TempDir(), "stop")
	r := runChild(t, `trap 'exit 9' TERM; echo "started $DB_PASSWORD"; while test ! -e '`+stop+`'; do sleep 0.01; done`,
		func(c *child) { c.onChange = "ignore" })
	r.await(t, "started one\n")
	r.change(value("db", "v2", `{"Password":"two"}`))
	r.changed <- struct{}{} // is taken only after the first was
	write(t, stop, "")
	if code := r.ends(t); code != 0 || r.world.holds() != "map[]" {
		t.Errorf("exit code %d, output %q", code, r.out())
	}
}

func TestExecMistakes(t *testing.T) {
	t.Parallel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	x := &Exec{
		OnChange: "signal:KILL",
		Stdin:    null,
		Stdout:   null,
		Stderr:   null,
		Grace:    -1,
		Log:      slog.New(slog.NewTextHandler(io.Discard, nil)),
		LastGood: &LastGood{Dir: "rel"},
	}
	want := `command: is required, after --
--secret: is required: NAME=PREFIX
--on-change: the signal must be HUP, INT, QUIT, USR1, USR2, TERM or WINCH
--grace, --wait, --interval, --max-stale: must not be negative
last_good.dir: must be an absolute path
last_good.key: set exactly one of file, credential, keyring`
	if err := x.Check(); err == nil || err.Error() != want {
		t.Errorf("mistakes\n%v\nwant\n%s", err, want)
	}
}
