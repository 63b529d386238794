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

// TestShellWordIsOneWord verifies that the shells which know $'…' take a word back out of a command
// as it was, in any locale, and that the command is one line without a command of keyturn in it.
func TestShellWordIsOneWord(t *testing.T) {
	t.Parallel()
	var shells []string
	for _, name := range []string{"bash", "ksh", "ksh93", "mksh", "zsh"} {
		if path, err := exec.LookPath(name); err == nil {
			shells = append(shells, path)
		}
	}
	if len(shells) == 0 {
		t.Skip("none of the shells is installed")
	}
	for _, word := range []string{
		"", "a b", "it's", "$(id)`id`", "a\nb", "\x1b[2J", "\x1b7", `a\b`, `a\` + "\n'", "a  b", "keyturn rotation undo NAME",
		"\u202e", "\u202e7", "\U000e0001", "ä\n",
	} {
		quoted := fault.ShellWord(word)
		if strings.Contains(quoted, "keyturn ") || !fault.IsShown(quoted) {
			t.Errorf("ShellWord(%q) = %q", word, quoted)
		}
		for _, shell := range shells {
			for _, locale := range []string{"C", "C.UTF-8"} {
				cmd := exec.Command(shell, "-c", "printf %s. "+quoted)
				cmd.Env = []string{"LC_ALL=" + locale}
				if out, err := cmd.Output(); err != nil || string(out) != word+"." {
					t.Errorf("ShellWord(%q) = %s, which %s reads as %q in %s (%v)", word, quoted, shell, out, locale, err)
				}
			}
		}
	}
}
