package kms_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
)

// TestRotationStates verifies that the constants of this package are the states that the server
// reports: no more, no less.
func TestRotationStates(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "states.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var here []string
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok {
			text, _ := strconv.Unquote(literal.Value)
			here = append(here, text)
		}
		return true
	})
	var reported []string
	for _, s := range rotation.States() {
		reported = append(reported, string(s))
	}
	slices.Sort(here)
	slices.Sort(reported)
	if !slices.Equal(here, reported) {
		t.Errorf("states.go declares %v, package rotation reports %v: declare the same states in both", here, reported)
	}
}
