package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target/command"
)

// TestEveryFindingHasARow verifies that the page of a kind of target has the code of each finding
// in its source, so that an operator finds what a code means.
func TestEveryFindingHasARow(t *testing.T) {
	t.Parallel()
	for _, k := range TargetKinds(command.Config{}) {
		dir, page := k.Name, k.Name
		if other, ok := packageOf[k.Name]; ok {
			dir = other
		}
		if k.Name == "mariadb" {
			page = "mysql"
		}
		text, err := os.ReadFile(filepath.Join("..", "..", "docs", "targets", page+".md"))
		if err != nil {
			t.Fatal(err)
		}
		codes := codesIn(t, filepath.Join("..", "target", dir))
		if len(codes) == 0 && dir != "plugin" {
			t.Errorf("%s: no code was found in the source", k.Name)
		}
		for _, code := range codes {
			if !strings.Contains(string(text), "`"+code+"`") {
				t.Errorf("docs/targets/%s.md does not have the finding %q", page, code)
			}
		}
	}
}

// adders are the functions whose first argument is the code of a finding.
var adders = []string{"Note", "Impossible", "NeedsConsent", "Denied", "report", "ask"}

// codesIn returns the codes of findings that the source of a package names as text.
func codesIn(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	add := func(e ast.Expr) {
		text, ok := e.(*ast.BasicLit)
		if !ok || text.Kind != token.STRING {
			return
		}
		if code, err := strconv.Unquote(text.Value); err == nil && code != "" {
			codes = append(codes, code)
		}
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && len(n.Args) > 1 && slices.Contains(adders, f.Sel.Name) {
					add(n.Args[0])
				}
			case *ast.CompositeLit:
				if kind, ok := n.Type.(*ast.SelectorExpr); ok && kind.Sel.Name == "Finding" {
					addCode(n, add)
				}
			}
			return true
		})
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// addCode adds the member Code of a finding.
func addCode(finding *ast.CompositeLit, add func(ast.Expr)) {
	for _, e := range finding.Elts {
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			if key, ok := pair.Key.(*ast.Ident); ok && key.Name == "Code" {
				add(pair.Value)
			}
		}
	}
}
