package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

// still is a world whose values a test sets.
type still struct {
	mu   sync.Mutex
	set  map[string]Value
	err  error
	held map[string]int // "name version" -> how often
}

func (w *still) put(values ...Value) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.set, w.err = of(values...), nil
}

func (w *still) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *still) values(_ context.Context, names []string) (map[string]Value, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	out := map[string]Value{}
	for _, name := range names {
		v, ok := w.set[name]
		if !ok {
			return nil, fmt.Errorf("secret %q: the server does not answer", name)
		}
		out[name] = v
	}
	return out, nil
}

func (w *still) hold(name, version string) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.held == nil {
		w.held = map[string]int{}
	}
	w.held[name+" "+version]++
	return sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.held[name+" "+version]--
	})
}

func (w *still) holds() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	held := maps.Clone(w.held)
	maps.DeleteFunc(held, func(_ string, n int) bool { return n == 0 })
	return fmt.Sprint(held)
}

// writerOf makes a file writer of one file of a configuration.
func writerOf(t *testing.T, w world, log *support.Log, f File) *fileWriter {
	t.Helper()
	s := &setup{}
	var m mistakes
	s.Files = []File{f}
	fill(reflect.ValueOf(&s.Config).Elem())
	s.checkFiles(&m)
	if err := m.err(); err != nil {
		t.Fatal(err)
	}
	return newFileWriter(s.files[0], w, slog.New(slog.NewTextHandler(log, nil)))
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// names lists a directory.
func list(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestFileKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, log := &still{}, &support.Log{}
	k := writerOf(t, w, log, File{
		Path:     filepath.Join(dir, "app.env"),
		Template: `A={{ secret "a" }} B={{ secret "b" }}`,
		Mode:     "0640",
	})
	ctx := t.Context()

	// Without a complete set nothing is written.
	w.put(value("a", "v1", "one"))
	k.sync(ctx)
	if got := list(t, dir); got != "" || !strings.Contains(k.Status().Error, `secret "b"`) {
		t.Fatalf("an incomplete set: files %q, status %+v", got, k.Status())
	}

	w.put(value("a", "v1", "one"), value("b", "v1", "two"))
	k.sync(ctx)
	info, err := os.Stat(k.Path)
	if err != nil || read(t, k.Path) != "A=one B=two" || info.Mode().Perm() != 0o640 || k.Status().Error != "" {
		t.Fatalf("file %q, mode %v, %v, status %+v", read(t, k.Path), info.Mode(), err, k.Status())
	}

	// The same versions write nothing, nor does another version with the same content.
	k.sync(ctx)
	w.put(value("a", "v2", "one"), value("b", "v1", "two"))
	k.sync(ctx)
	if again, _ := os.Stat(k.Path); !os.SameFile(info, again) ||
		k.Status().Writes != 1 ||
		w.holds() != "map[a v2:1 b v1:1]" {
		t.Errorf("the file was written anew, or holds %s; status %+v", w.holds(), k.Status())
	}

	// An error leaves the file, and is logged once.
	w.fail(errors.New("denied"))
	k.sync(ctx)
	k.sync(ctx)
	if read(t, k.Path) != "A=one B=two" || k.Status().Error != "denied" || strings.Count(log.String(), "denied") != 1 {
		t.Errorf("after an error: file %q, status %+v, log %s", read(t, k.Path), k.Status(), log)
	}

	// A change replaces it; what was there is not written into, so a reader that has it open reads on.
	w.put(value("a", "v3", "three"), value("b", "v1", "two"))
	old, err := os.Open(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	k.sync(ctx)
	var before [32]byte
	n, _ := old.Read(before[:])
	if read(t, k.Path) != "A=three B=two" || string(before[:n]) != "A=one B=two" || k.Status().Error != "" {
		t.Errorf("file %q, the old one %q, status %+v", read(t, k.Path), before[:n], k.Status())
	}

	// A file that another program changed or removed is written again.
	if err := os.Remove(k.Path); err != nil {
		t.Fatal(err)
	}
	k.sync(ctx)
	if err := os.Chmod(k.Path, 0o666); err != nil {
		t.Fatal(err)
	}
	k.sync(ctx)
	if info, err := os.Stat(k.Path); err != nil || info.Mode().Perm() != 0o640 || list(t, dir) != "app.env" {
		t.Errorf("mode %v, %v, directory %q", info.Mode(), err, list(t, dir))
	}
	if strings.Contains(log.String(), "three") {
		t.Error("the log shows a value")
	}
}

// TestFileCannotBeWritten verifies that a file which cannot be replaced stays as it is, and nothing
// is left beside it.
func TestFileCannotBeWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, log := &still{}, &support.Log{}
	k := writerOf(t, w, log, File{Path: filepath.Join(dir, "a"), Template: `{{ secret "a" }}`})
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700); err != nil { // it came after the check
		t.Fatal(err)
	}
	w.put(value("a", "v1", "one"))
	k.sync(t.Context())
	if got := k.Status().Error; !strings.HasSuffix(got, "is not a regular file") || list(t, dir) != "a" {
		t.Errorf("error %q, directory %q", got, list(t, dir))
	}
	select {
	case <-k.first:
		t.Error("the file counts as right")
	default:
	}
}

func TestMounted(t *testing.T) {
	t.Parallel()
	const table = `22 1 0:21 / / rw,relatime - ext4 /dev/root rw
30 22 0:25 /vol/app.env /etc/my\040app/app.env rw - tmpfs tmpfs rw
`
	for path, want := range map[string]bool{"/etc/my app/app.env": true, "/etc/my app": false, "/": true, "/etc": false} {
		if got := mounted(table, path); got != want {
			t.Errorf("mounted(%q) = %t", path, got)
		}
	}
}

// TestHook verifies that a command gets no secret of the agent's, is tried again up to a
// limit, and that a version counts as in use only once its program was notified.
func TestHook(t *testing.T) {
	t.Setenv("KEYTURN_ACCESS_KEY_SECRET", "marker")
	dir := t.TempDir()
	script := filepath.Join(dir, "reload")
	write(t, script, `#!/bin/sh
echo "$KEYTURN_FILE $1 $(env | grep -c marker)" >> "$(dirname "$0")/notified"
test -e "$(dirname "$0")/fine"
`)
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	w, log := &still{}, &support.Log{}
	k := writerOf(t, w, log, File{
		Path:     filepath.Join(dir, "a"),
		Template: `{{ secret "a" }}`,
		OnChange: &Hook{Command: []string{script, "x y"}, Attempts: 3},
	})
	k.notify.pause = time.Millisecond
	w.put(value("a", "v1", "one"))
	k.sync(t.Context())
	want := strings.Repeat(k.Path+" x y 0\n", 3)
	if got := read(t, dir+"/notified"); got != want ||
		!strings.Contains(k.Status().Error, "could not be notified 3 times: command "+script+": exit status 1") {
		t.Fatalf("notified %q, status %+v", got, k.Status())
	}
	if !k.Status().Pending || w.holds() != "map[]" {
		t.Errorf("pending %t, holds %s, want a version that is not in use yet", k.Status().Pending, w.holds())
	}
	k.sync(t.Context())
	if got := read(t, dir+"/notified"); got != want {
		t.Errorf("notified %q: it was tried again without a change", got)
	}
	write(t, dir+"/fine", "")
	w.put(value("a", "v2", "two"))
	k.sync(t.Context())
	if k.Status().Pending ||
		k.Status().Error != "" ||
		w.holds() != "map[a v2:1]" ||
		strings.Contains(log.String(), "marker") {
		t.Errorf("status %+v, holds %s", k.Status(), w.holds())
	}
	k.sync(t.Context())
	if got := strings.Count(read(t, dir+"/notified"), "\n"); got != 4 {
		t.Errorf("notified %d times, want 4", got)
	}
}

func TestHookTimeout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "hang")
	write(t, script, "#!/bin/sh\nsleep 600 &\nwait\n")
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	var m mistakes
	n := (&Hook{Command: []string{script}, Timeout: 50 * time.Millisecond, Attempts: 1}).check("at", &m)
	if err := n.notifyProgram(t.Context(), "/file", make(chan struct{}, 1)); err == nil ||
		!strings.Contains(err.Error(), "did not end within 50ms") {
		t.Errorf("error %v, want the time limit", err)
	}
}

func TestHookSignal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var m mistakes
	// WINCH is ignored unless asked for
	n := (&Hook{Signal: "WINCH", PIDFile: filepath.Join(dir, "pid"), Attempts: 1}).check("at", &m)
	for content, want := range map[string]string{
		"":                            "does not hold the number of a process",
		"1":                           "does not hold the number of a process",
		"-5":                          "does not hold the number of a process",
		"999999999":                   "there is no process 999999999",
		fmt.Sprint(os.Getpid(), "\n"): "",
	} {
		write(t, n.PIDFile, content)
		err := n.once(t.Context(), "/file")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("pid file %q: error %v, want %q", content, err, want)
		}
	}
}

// TestNoProgramYet verifies that a program which needs the file before it starts causes no error,
// that its pid_file is named in full once it has run, and that a check between two attempts does
// not count as a change of the secrets.
func TestNoProgramYet(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w, log := &still{}, &support.Log{}
	pidFile := filepath.Join(dir, "app.pid")
	k := writerOf(t, w, log, File{
		Path:     filepath.Join(dir, "a"),
		Template: `{{ secret "a" }}`,
		OnChange: &Hook{Signal: "WINCH", PIDFile: pidFile, Attempts: 2}, // WINCH is ignored unless asked for
	})
	k.notify.pause = time.Millisecond
	w.put(value("a", "v1", "one"))
	k.wake <- struct{}{}
	for range 2 { // the first is interrupted
		k.sync(t.Context())
		if got := k.Status(); got.Error != "" || strings.Contains(log.String(), "ERROR") {
			t.Fatalf("before the program has started: %+v\n%s", got, log.String())
		}
		select {
		case <-k.wake:
		default:
		}
	}
	if !strings.Contains(log.String(), "no program yet") || !strings.Contains(log.String(), pidFile) ||
		w.holds() != "map[a v1:1]" {
		t.Errorf("holds %s, log:\n%s", w.holds(), log.String())
	}
	write(t, pidFile, fmt.Sprint(os.Getpid()))
	w.put(value("a", "v2", "two"))
	k.sync(t.Context())
	if got := k.Status(); got.Error != "" || got.Pending {
		t.Fatalf("with the program: %+v", got)
	}
	if err := os.Remove(pidFile); err != nil {
		t.Fatal(err)
	}
	w.put(value("a", "v3", "three"))
	k.sync(t.Context())
	want := "could not be notified 2 times: pid_file " + pidFile + ": no such file"
	if got := k.Status(); !strings.Contains(got.Error, want) {
		t.Errorf("after the program has ended: %+v", got)
	}
	if !strings.Contains(log.String(), "program not notified") || strings.Contains(log.String(), "file not written") {
		t.Errorf("log:\n%s", log.String())
	}
}

// TestHookMistakes verifies that one mistake does not hide another.
func TestHookMistakes(t *testing.T) {
	t.Parallel()
	var m mistakes
	(&Hook{Signal: "HUPP", Attempts: 1}).check("at", &m)
	if err := m.err(); err == nil ||
		!strings.Contains(err.Error(), "at.signal") ||
		!strings.Contains(err.Error(), "at.pid_file: is required") {
		t.Errorf("a signal that does not exist without a pid_file: %v", err)
	}
}
