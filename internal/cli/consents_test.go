package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/kms"
)

// packageOf returns the package of a kind of target, where it is not the name of the kind.
var packageOf = map[string]string{"mariadb": "mysql", "webhook": "plugin", "command": "plugin"}

// TestEveryConsentIsDeclared verifies that the operator can agree to each finding that needs a
// consent, and that a kind declares no other tokens.
func TestEveryConsentIsDeclared(t *testing.T) {
	t.Parallel()
	for _, k := range TargetKinds(command.Config{}) {
		dir, ok := packageOf[k.Name]
		if !ok {
			dir = k.Name
		}
		asked := consentsAsked(t, filepath.Join("..", "target", dir))
		if dir == "plugin" {
			asked = []string{"plugin-*"} // the code is the plug-in's
		}
		if !slices.Equal(asked, k.Consents) {
			t.Errorf("%s asks for the consents %q, and declares %q", k.Name, asked, k.Consents)
		}
		for _, token := range asked {
			if err := k.CheckConsent(strings.ReplaceAll(token, "*", "x")); err != nil {
				t.Errorf("%s: %v", k.Name, err)
			}
		}
		if err := k.CheckConsent("no-such"); err == nil || len(asked) > 0 && !strings.Contains(err.Error(), asked[0]) {
			t.Errorf("%s: an unknown token: %v; want the known ones", k.Name, err)
		}
	}
}

// consentsAsked returns the consents that the source of a package asks for: the first argument of
// NeedsConsent and of ask, and what is assigned to the field Consent.
func consentsAsked(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	constants, used := map[string]string{}, map[string]bool{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			readConsents(n, constants, used)
			return true
		})
	}
	var tokens []string
	for name := range used {
		if value, ok := constants[name]; ok {
			tokens = append(tokens, value)
		}
	}
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// readConsents notes the constants of text in n, and the names that stand for a consent.
func readConsents(n ast.Node, constants map[string]string, used map[string]bool) {
	use := func(e ast.Expr) {
		ast.Inspect(e, func(n ast.Node) bool {
			if name, ok := n.(*ast.Ident); ok {
				used[name.Name] = true
			}
			return true
		})
	}
	switch n := n.(type) {
	case *ast.ValueSpec:
		for i, v := range n.Values {
			if text, ok := v.(*ast.BasicLit); ok && text.Kind == token.STRING {
				constants[n.Names[i].Name], _ = strconv.Unquote(text.Value)
			}
		}
	case *ast.CallExpr:
		f, ok := n.Fun.(*ast.SelectorExpr)
		if ok && len(n.Args) > 1 && (f.Sel.Name == "NeedsConsent" || f.Sel.Name == "ask") {
			use(n.Args[0])
		}
	case *ast.KeyValueExpr:
		if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Consent" {
			use(n.Value)
		}
	case *ast.AssignStmt:
		for i, left := range n.Lhs {
			if f, ok := left.(*ast.SelectorExpr); ok && f.Sel.Name == "Consent" && len(n.Rhs) == len(n.Lhs) {
				use(n.Rhs[i])
			}
		}
	}
}

// TestConfigureCommandRepeatsSettings verifies that the command that a check prints has each flag
// of configure, because configure replaces all settings.
func TestConfigureCommandRepeatsSettings(t *testing.T) {
	t.Parallel()
	r := &kms.DescribeRotationResponse{}
	fields := reflect.ValueOf(r).Elem()
	for i := range fields.NumField() {
		switch f := fields.Field(i); {
		case f.Kind() == reflect.String:
			f.SetString("it's a value")
		case f.Type() == reflect.TypeFor[[]string]():
			f.Set(reflect.ValueOf([]string{"one", "two"}))
		}
	}
	r.AutomaticRotation = "Disabled"
	byCron := configureCommand(r)
	r.Cron = ""
	both := byCron + configureCommand(r)
	flags := reflect.TypeFor[rotationConfigure]()
	for i := range flags.NumField() {
		name := flags.Field(i).Name
		if name == "Name" {
			continue
		}
		flag := "--" + strings.ToLower(name[:1])
		for _, c := range name[1:] {
			if c >= 'A' && c <= 'Z' {
				flag += "-"
			}
			flag += strings.ToLower(string(c))
		}
		if !strings.Contains(both, flag+" ") {
			t.Errorf("%s is not repeated", flag)
		}
	}
	for _, want := range []string{`--cron 'it'\''s a value' --manual`, "--consent one --consent two"} {
		if !strings.Contains(byCron, want) {
			t.Errorf("%s\nlacks %s", byCron, want)
		}
	}
}
