package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

// TestTokensAreDeclaredOnce verifies that the commands name strategies, modes, states and the other
// tokens of the API by their constants: a literal would be left behind by a change.
func TestTokensAreDeclaredOnce(t *testing.T) {
	t.Parallel()
	tokens := []string{
		string(target.Single), string(target.Overlap), string(target.Double),
		string(rotation.Rotate), string(rotation.Rehearse), string(rotation.Reapply), string(rotation.Emergency),
		rotation.CredentialLive, rotation.CredentialDead, rotation.CredentialUnknown,
		kms.RepairProbe, kms.RepairApply, kms.RepairAdopt,
		kms.OutcomeSucceeded, kms.OutcomeUnchanged, kms.OutcomeNeedsOperator,
		kms.VerdictSafe, kms.VerdictSafeWithConsent, kms.VerdictImpossible,
	}
	for _, s := range rotation.States() {
		tokens = append(tokens, string(s))
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if pair, ok := n.(*ast.KeyValueExpr); ok { // the name of a flag may be the same word
				key, ok := pair.Key.(*ast.Ident)
				return !ok || key.Name != "flag"
			}
			text, ok := n.(*ast.BasicLit)
			if !ok || text.Kind != token.STRING {
				return true
			}
			if value, err := strconv.Unquote(text.Value); err == nil && slices.Contains(tokens, value) {
				t.Errorf("%s: use the constant for %q", positions.Position(text.Pos()), value)
			}
			return true
		})
	}
	want := []string{string(target.Single), string(target.Overlap), string(target.Double)}
	if got := strings.Split(strings.Trim(vars()["strategies"], ","), ","); !slices.Equal(got, want) {
		t.Errorf("--strategy takes %q, want %q", got, want)
	}
}

// TestFlagsOf verifies that the flags before a command are those that the parser knows, embedded
// and renamed ones too, and that a flag without a value has none.
func TestFlagsOf(t *testing.T) {
	t.Parallel()
	type more struct {
		LogLevel string `short:"l"`
	}
	var all struct {
		globals
		more
		Renamed string `name:"other-name"`
		Quiet   bool
	}
	want := map[string]bool{
		"--profile": true, "--output": true, "-o": true, "--log-level": true, "-l": true, "--other-name": true,
		"--quiet": false,
	}
	if got := flagsOf(&all); !maps.Equal(got, want) {
		t.Errorf("flags: %v, want %v", got, want)
	}
	parser := newTestParser(t, &env{stdout: io.Discard, stderr: io.Discard})
	for _, args := range [][]string{
		{"--profile", "p", "-o", "json", "secret", "list"},
		{"--output=json", "secret", "list"},
	} {
		if _, err := parser.Parse(ordered(args)); err != nil {
			t.Errorf("keyturn %s: %v", strings.Join(args, " "), err)
		}
	}
}
