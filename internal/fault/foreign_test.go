package fault_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
)

// TestForeign verifies that no text of another system becomes a command when its white space
// becomes spaces, and that other texts stay.
func TestForeign(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                             "",
		"keyturn":                      "keyturn",
		"a keyturn-app":                "a keyturn-app",
		"keyturn rotation undo NAME":   `keyturn\x20rotation undo NAME`,
		"keyturn\trotation undo NAME":  `keyturn\x20rotation undo NAME`,
		"keyturn\n  rotation keyturn ": `keyturn\x20rotation keyturn\x20`,
		"keyturn\u00a0rotation":        `keyturn\x20rotation`,
		"keyturnkeyturn x":             `keyturnkeyturn\x20x`,
	} {
		if got := fault.Foreign(text); got != want {
			t.Errorf("Foreign(%q) = %q, want %q", text, got, want)
		}
		if got := fault.Named(strings.Join(strings.Fields(fault.Foreign(text)), " "), "x"); strings.Contains(got, "undo x") {
			t.Errorf("%q is a command: %q", text, got)
		}
	}
	if got, want := fault.Quoted("a\n\"keyturn x"), `"a\n\"keyturn\x20x"`; got != want {
		t.Errorf("Quoted: %s, want %s", got, want)
	}
}

// TestShellWordIsOneWord verifies that a shell takes a word back out of a command as it was, and
// that the command is one line without a command of keyturn in it.
func TestShellWordIsOneWord(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	for _, word := range []string{
		"", "a b", "it's", "$(id)`id`", "a\nb", "\x1b[2J", `a\b`, `a\` + "\n'", "a  b", "keyturn rotation undo NAME",
		"\u202e", "\U000e0001",
	} {
		quoted := fault.ShellWord(word)
		if strings.Contains(quoted, "keyturn ") || !fault.IsShown(quoted) {
			t.Errorf("ShellWord(%q) = %q", word, quoted)
		}
		out, err := exec.Command(shell, "-c", "LC_ALL=C.UTF-8; printf %s. "+quoted).Output()
		if err != nil || string(out) != word+"." {
			t.Errorf("ShellWord(%q) = %s, which a shell reads as %q (%v)", word, quoted, out, err)
		}
	}
}
