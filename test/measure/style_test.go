package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestStyle verifies that a line which breaks a rule fails the check where it is new, that the
// output names file, line and advice, and that a line may move to another file.
func TestStyle(t *testing.T) {
	t.Chdir(t.TempDir())
	sh := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(update bool) (string, error) {
		var b strings.Builder
		err := style(&b, update, false)
		return b.String(), err
	}
	old := "// whoever calls is told\nvar a = 1\n"
	wide := "var b = \"" + strings.Repeat("x", maxWidth) + "\"\n"
	sh("git", "init", "-q")
	sh("mkdir", "scripts")
	write("a.go", "package a\n\n"+old)
	if out, err := check(true); err != nil {
		t.Fatalf("update: %v\n%s", err, out)
	}
	sh("git", "add", "-A")
	sh("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first")
	if out, err := check(false); err != nil {
		t.Errorf("nothing is new: %v\n%s", err, out)
	}

	sh("git", "mv", "a.go", "b.go")
	if out, err := check(false); err != nil {
		t.Errorf("the line moved: %v\n%s", err, out)
	}

	write("b.go", "package a\n\n"+old+wide+"var c = `by itself`\n")
	out, err := check(false)
	if err == nil {
		t.Errorf("two lines are new and break a rule: no error\n%s", out)
	}
	for _, want := range []string{
		"b.go:5: 130 columns: write break the line",
		`b.go:6: "by itself": write "automatically"`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
	if _, err := check(true); err == nil {
		t.Error("an update raised a count")
	}

	write("b.go", "package a\n\nvar whoever, told = 1, 2\n") // identifiers are no prose
	if out, err := check(true); err != nil {
		t.Errorf("update to lower counts: %v\n%s", err, out)
	}
	write("b.go", "package a\n\n"+old)
	if out, err := check(false); err == nil {
		t.Errorf("the count was lowered, and the line came back: no error\n%s", out)
	}
}
