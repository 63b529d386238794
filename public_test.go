package keyturn_test

import (
	"go/ast"
	"go/doc"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// publicPackages are the directories of the packages that other modules can import.
func publicPackages(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	var dirs []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && name == "node_modules",
			d.IsDir() && path != "." && strings.HasPrefix(name, "."),
			path == "cmd", path == "test", path == "examples", path == "scripts",
			d.IsDir() && name == "internal", d.IsDir() && name == "testdata":
			return filepath.SkipDir
		case strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go"):
			if dir := filepath.Dir(path); !found[dir] {
				found[dir] = true
				dirs = append(dirs, dir)
			}
		}
		return nil
	})
	if err != nil || len(dirs) < 10 {
		t.Fatalf("%d public packages found, %v", len(dirs), err)
	}
	return dirs
}

// load returns the documentation of a package, with the examples of its tests.
func load(t *testing.T, dir string) *doc.Package {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	fileSet := token.NewFileSet()
	var files []*ast.File
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".go") {
			continue
		}
		file, err := parser.ParseFile(fileSet, filepath.Join(dir, entry.Name()), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	p, err := doc.NewFromFiles(fileSet, files, module+filepath.ToSlash(dir))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPublicPackages verifies that each package that other modules can import says what it is for,
// shows an Example, documents each exported name, and links only to names that exist.
func TestPublicPackages(t *testing.T) {
	t.Parallel()
	for _, dir := range publicPackages(t) {
		p := load(t, dir)
		examples := len(p.Examples)
		check := func(name, text string) {
			if !ast.IsExported(name[strings.LastIndex(name, ".")+1:]) {
				return
			}
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s: %s has no doc comment", dir, name)
			}
			for _, link := range unresolved(p, text) {
				t.Errorf("%s: the comment of %s links to %s, which does not exist or is not imported", dir, name, link)
			}
		}
		values := func(list []*doc.Value) {
			for _, v := range list {
				for _, spec := range v.Decl.Specs {
					s := spec.(*ast.ValueSpec)
					for _, name := range s.Names {
						check(name.Name, v.Doc+s.Doc.Text()+s.Comment.Text())
					}
				}
			}
		}
		functions := func(of string, list []*doc.Func) {
			for _, f := range list {
				check(of+f.Name, f.Doc)
				examples += len(f.Examples)
			}
		}
		check("Package", p.Doc)
		values(p.Consts)
		values(p.Vars)
		functions("", p.Funcs)
		for _, typ := range p.Types {
			check(typ.Name, typ.Doc)
			examples += len(typ.Examples)
			values(typ.Consts)
			values(typ.Vars)
			functions("", typ.Funcs)
			functions(typ.Name+".", typ.Methods)
		}
		if examples == 0 {
			t.Errorf("%s has no Example", dir)
		}
	}
}

var docLink = regexp.MustCompile(`\[\*?([a-z]\w*\.)?[A-Z]\w*(\.[A-Z]\w*)?\]`)

// unresolved returns what looks like a link to a name in a comment, and is none.
func unresolved(p *doc.Package, text string) (links []string) {
	inText := func(list []comment.Text) {
		for _, t := range list {
			if plain, ok := t.(comment.Plain); ok {
				links = append(links, docLink.FindAllString(string(plain), -1)...)
			}
		}
	}
	var inBlocks func([]comment.Block)
	inBlocks = func(blocks []comment.Block) {
		for _, b := range blocks {
			switch b := b.(type) {
			case *comment.Paragraph:
				inText(b.Text)
			case *comment.List:
				for _, item := range b.Items {
					inBlocks(item.Content)
				}
			}
		}
	}
	inBlocks(p.Parser().Parse(text).Content)
	return links
}
