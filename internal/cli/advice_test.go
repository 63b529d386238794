package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/internal/protocol"
)

var (
	humps     = regexp.MustCompile(`[A-Z][a-z]+`)
	aWord     = regexp.MustCompile(`[A-Za-z:]+`)
	aCommand  = regexp.MustCompile(`keyturn ((?:rotation|target|secret|user|group|policy) [a-z-]+(?: [a-z-]+)?)`)
	anExample = regexp.MustCompile(`such (as|operation)`)
)

// TestAdviceNamesCommands verifies that a sentence for an operator names commands that exist, and
// an operation of the API only beside its command.
func TestAdviceNamesCommands(t *testing.T) {
	t.Parallel()
	parser, err := newParser(&env{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	parameters := map[string]bool{}
	for _, o := range protocol.Operations() {
		for _, p := range o.Params() {
			parameters[p.Name] = len(humps.FindAllString(p.Name, -1)) > 1
		}
	}
	commands := 0
	for _, dir := range []string{"api", "cli", "rotation", "rotator", "secret", "target"} {
		for _, s := range sentences(t, filepath.Join("..", dir)) {
			for _, i := range aWord.FindAllStringIndex(s.text, -1) {
				word, rest := s.text[i[0]:i[1]], s.text[i[1]:]
				ofAPI := protocol.Named(word) != nil || parameters[word] && !s.ofParameter && !strings.Contains(s.text, `{"`)
				if ofAPI && !strings.HasPrefix(rest, " (keyturn ") && !anExample.MatchString(s.text) {
					t.Errorf("%s names %s without a command: %s", s.at, word, s.text)
				}
			}
			for _, match := range aCommand.FindAllStringSubmatch(s.text, -1) {
				commands++
				if !isKnown(parser.Model.Node, strings.Fields(match[1])) {
					t.Errorf("%s names %q, which is no command: %s", s.at, match[0], s.text)
				}
			}
		}
	}
	if commands < 30 {
		t.Errorf("%d commands were found", commands)
	}
}

// isKnown reports whether words begin with a command of the program.
func isKnown(node *kong.Node, words []string) bool {
	for ; len(node.Children) > 0 && len(words) > 0; words = words[1:] {
		var next *kong.Node
		for _, child := range node.Children {
			if child.Name == words[0] {
				next = child
			}
		}
		if next == nil {
			return false
		}
		node = next
	}
	return len(node.Children) == 0
}

// sentence is a text in the source that has a space. Whatever is put into it is NAME.
type sentence struct {
	at, text    string
	ofParameter bool // says what is wrong with a parameter, which [inFlags] shows as a flag
}

// sentences returns the sentences in the source below a directory.
func sentences(t *testing.T, dir string) (found []sentence) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case filepath.Base(path) == "explore": // its texts are for developers
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, path, nil, 0)
		if err != nil {
			return err
		}
		end := token.NoPos // of the last call that refuses a parameter
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field: // its tag is none
				return n.Tag == nil
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Parameter" {
					end = n.End()
				}
			case ast.Expr:
				text, ok := textOf(n)
				if strings.Contains(text, " ") {
					found = append(found, sentence{positions.Position(n.Pos()).String(), text, n.Pos() < end})
				}
				return !ok
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// textOf returns the text of an expression that is a literal, or a sum with one.
func textOf(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind != token.STRING {
			return "", false
		}
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		if e.Op != token.ADD {
			return "", false
		}
		left, inLeft := textOf(e.X)
		right, inRight := textOf(e.Y)
		if !inLeft {
			left = "NAME"
		}
		if !inRight {
			right = "NAME"
		}
		return left + right, inLeft || inRight
	}
	return "", false
}
