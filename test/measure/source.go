package main

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxWidth is the widest line of code that is allowed, in characters; maxComment the widest line
// of a comment.
const (
	maxWidth   = 120
	maxComment = 100
)

// source is one Go file.
type source struct {
	path  string // with slashes, below the root of the tree
	lines []string
	tree  *ast.File
	files *token.FileSet
	// tokens counts the tokens other than comments; code and comment count the lines that have one.
	tokens, code, comment int
}

// load reads and parses the Go files of a tree, without tests, testdata and generated files.
func load(root string, paths []string) ([]*source, error) {
	var all []*source
	for _, path := range paths {
		if !strings.HasSuffix(path, ".go") || isTest(path) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return nil, err
		}
		s := &source{path: path, files: token.NewFileSet(), lines: split(string(text))}
		if s.tree, err = parser.ParseFile(s.files, path, text, parser.ParseComments); err != nil {
			return nil, err
		}
		if ast.IsGenerated(s.tree) {
			continue
		}
		s.count(text)
		all = append(all, s)
	}
	return all, nil
}

func (s *source) count(text []byte) {
	files := token.NewFileSet()
	file := files.AddFile(s.path, -1, len(text))
	var scan scanner.Scanner
	scan.Init(file, text, nil, scanner.ScanComments)
	code, comment := map[int]bool{}, map[int]bool{}
	for {
		pos, t, literal := scan.Scan()
		if t == token.EOF {
			break
		}
		if t == token.SEMICOLON && literal == "\n" {
			continue
		}
		lines := code
		if t == token.COMMENT {
			lines = comment
		} else {
			s.tokens++
		}
		for i := range strings.Count(literal, "\n") + 1 {
			lines[file.Line(pos)+i] = true
		}
	}
	s.code, s.comment = len(code), len(comment)
}

func split(text string) []string { return strings.Split(strings.TrimSuffix(text, "\n"), "\n") }

func isTest(path string) bool {
	return strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/testdata/")
}

// support lists packages outside test/ that serve tests alone.
var support = []string{"internal/rotation/explore/", "internal/target/targettest/"}

// isProduct reports whether a file belongs to what users build, link or import.
func isProduct(path string) bool {
	return strings.HasSuffix(path, ".go") && !isTest(path) && !strings.HasPrefix(path, "test/") &&
		!strings.HasPrefix(path, "examples/") && !slices.ContainsFunc(support, func(s string) bool {
		return strings.HasPrefix(path, s)
	})
}

// functionLines returns the lengths of all declared functions, from their first line to their
// last, sorted.
func functionLines(all []*source) []int {
	var lengths []int
	for _, s := range all {
		for _, d := range s.tree.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				lengths = append(lengths, s.files.Position(f.End()).Line-s.files.Position(f.Pos()).Line+1)
			}
		}
	}
	slices.Sort(lengths)
	return lengths
}

// quantile returns the value below which the given share of the sorted values lies.
func quantile(sorted []int, share float64) int {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(share*float64(len(sorted)-1))]
}

// exported counts the exported names of a file, and returns those without a comment.
func exported(s *source) (total int, undocumented []string) {
	note := func(name string, documented bool) {
		total++
		if !documented {
			undocumented = append(undocumented, s.tree.Name.Name+"."+name)
		}
	}
	for _, d := range s.tree.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if name, ok := exportedFunction(d); ok {
				note(name, d.Doc != nil)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					if spec.Name.IsExported() {
						note(spec.Name.Name, d.Doc != nil || spec.Doc != nil || spec.Comment != nil)
					}
				case *ast.ValueSpec:
					for _, name := range spec.Names {
						if name.IsExported() {
							note(name.Name, d.Doc != nil || spec.Doc != nil || spec.Comment != nil)
						}
					}
				}
			}
		}
	}
	return total, undocumented
}

// exportedFunction returns the name of an exported function, or of an exported method of an
// exported type.
func exportedFunction(f *ast.FuncDecl) (string, bool) {
	if !f.Name.IsExported() {
		return "", false
	}
	if f.Recv == nil {
		return f.Name.Name, true
	}
	of := f.Recv.List[0].Type
	for {
		switch t := of.(type) {
		case *ast.StarExpr:
			of = t.X
		case *ast.IndexExpr:
			of = t.X
		case *ast.IndexListExpr:
			of = t.X
		case *ast.Ident:
			return t.Name + "." + f.Name.Name, t.IsExported()
		default:
			return "", false
		}
	}
}
