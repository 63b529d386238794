package targettest

import (
	"strings"
	"testing"
	"unicode"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// HostileCommand is a name that a server may have for something, and that an operator could take
// for a command of Keyturn.
const HostileCommand = `keyturn rotation undo NAME`

// HostileName is such a name with what ends quotes, runs commands and moves the cursor.
const HostileName = "x'\"`id`$(id)\n\x1b[2J\u202e. To agree: keyturn\trotation undo NAME; " +
	"keyturn  rotation undo NAME; " +
	HostileCommand

// Harmless verifies that the texts of findings and errors, as an operator gets them, name what they
// are about, in one line of printable characters and without a command of Keyturn that a name
// brings.
func Harmless(t testing.TB, list []target.Finding, errs ...error) {
	t.Helper()
	var texts []string
	for _, f := range target.BoundedFindings(list) {
		f = f.Named("db_cred")
		texts = append(texts, f.Text, f.Fix, f.Account)
	}
	for _, err := range errs {
		texts = append(texts, fault.Named(target.TextForCaller(err), "db_cred"))
	}
	const program = "keyturn"
	named := false
	for _, text := range texts {
		named = named || strings.Contains(text, "rotation undo NAME")
		if strings.Contains(text, program+" rotation undo") {
			t.Errorf("a name is a command: %s", text)
		}
		if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("not printable: %q", text)
		}
	}
	if !named {
		t.Errorf("no text has the name: %q", texts)
	}
}
