package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/internal/wire"
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
// NeedsConsent, ChangesOthers and ask, and what is assigned to the field Consent.
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
		asks := []string{"NeedsConsent", "ChangesOthers", "ask"}
		if ok && len(n.Args) > 1 && slices.Contains(asks, f.Sel.Name) {
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

// TestSettingsHaveFlags verifies that each flag of configure that sets a value can be reset and is
// shown, and that nothing else can; and that messages of the server name it by its parameter.
func TestSettingsHaveFlags(t *testing.T) {
	t.Parallel()
	r := &kms.DescribeRotationResponse{}
	fields := reflect.ValueOf(r).Elem()
	for i := range fields.NumField() {
		switch f := fields.Field(i); {
		case f.Kind() == reflect.String:
			f.SetString(fields.Type().Field(i).Name)
		case f.Type() == reflect.TypeFor[[]string]():
			f.Set(reflect.ValueOf([]string{fields.Type().Field(i).Name}))
		}
	}
	flags := reflect.TypeFor[rotationConfigure]()
	var named, settings []string
	for i := range flags.NumField() {
		if f := flags.Field(i); !slices.Contains([]string{"Name", "Manual", "Reset", "Replace"}, f.Name) {
			named = append(named, regexp.MustCompile("[A-Z]").ReplaceAllStringFunc(f.Name, func(c string) string {
				return "-" + strings.ToLower(c)
			})[1:])
		}
	}
	params := reflect.TypeFor[kms.ConfigureRotationRequest]()
	ofServer := api.ConfigureFlags()
	for _, s := range rotationSettings {
		if ofServer[s.param] != s.flag {
			t.Errorf("the server names %s as --%s, and the command has --%s", s.param, ofServer[s.param], s.flag)
		}
		delete(ofServer, s.param)
		settings = append(settings, s.flag)
		if got := s.of(r); got != s.param && got != s.param+"s" && "Configured"+s.param != got {
			t.Errorf("--%s shows the member %s, and sets %s", s.flag, got, s.param)
		}
		declared := slices.ContainsFunc(wire.Params(params), func(p wire.Param) bool { return p.Name == s.param })
		if param, err := resetParam(s.flag); !declared || s.always == (err == nil) || err == nil && param != s.param {
			t.Errorf("--reset %s: %q, %v; %s is declared: %v", s.flag, param, err, s.param, declared)
		}
	}
	if diff := cmp.Diff(named, settings, cmpopts.SortSlices(strings.Compare)); diff != "" {
		t.Errorf("flags and settings (-flags +settings):\n%s", diff)
	}
	if len(ofServer) > 0 {
		t.Errorf("flags that the server names, and the command does not have: %v", ofServer)
	}
	_, err := resetParam("window-size")
	if err == nil || !strings.Contains(err.Error(), "use one of: strategy, account,") {
		t.Errorf("an unknown setting: %v", err)
	}
}
