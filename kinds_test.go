package keyturn_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryKindRunsTheSuite verifies that the package of every kind of target is tested by
// targettest.Run: in a test of its own, or of an example that uses it.
func TestEveryKindRunsTheSuite(t *testing.T) {
	t.Parallel()
	kinds := 0
	for _, name := range importsOfFile(t, "internal/cli/kinds.go") {
		dir, ok := strings.CutPrefix(name, module)
		if !ok || path.Dir(dir) != "internal/target" {
			continue
		}
		kinds++
		if !runsSuite(t, dir, "") && !runsSuite(t, "examples", name) {
			t.Errorf("no test of %s calls targettest.Run", dir)
		}
	}
	if kinds == 0 {
		t.Error("internal/cli/kinds.go imports no kind of target")
	}
}

// runsSuite reports whether a test under dir, which imports a package unless that is empty, calls
// targettest.Run.
func runsSuite(t *testing.T, dir, imports string) (runs bool) {
	t.Helper()
	err := filepath.WalkDir(filepath.FromSlash(dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		if imports != "" && !slices.Contains(importsOfFile(t, path), imports) {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Run" {
				if from, ok := f.X.(*ast.Ident); ok && from.Name == "targettest" {
					runs = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

func importsOfFile(t *testing.T, path string) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		names = append(names, name)
	}
	return names
}
