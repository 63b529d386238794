package keyturn_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the picture of the layers in docs/ARCHITECTURE.md")

// layers names the line of the picture that has a package. Lines without a name belong to the layer
// above them.
var layers = map[string]string{
	"internal/server":   "wiring",
	"internal/agent":    "doors",
	"internal/api":      "calls",
	"internal/store":    "seams",
	"internal/target/*": "kinds",
	"internal/secret":   "core",
	"ram":               "wire",
	"sign":              "leaves",
}

const pictureWidth = 110 // columns

// picture renders the layers, the highest first.
func picture() string {
	var b strings.Builder
	for _, packages := range slices.Backward(lines) {
		name := ""
		for _, p := range packages {
			name += layers[p]
		}
		column := 8
		fmt.Fprintf(&b, "%-8s", name)
		for _, p := range packages {
			if column+2+len(p) > pictureWidth {
				fmt.Fprintf(&b, "\n%8s", "")
				column = 8
			}
			b.WriteString("  " + p)
			column += 2 + len(p)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// TestPicture verifies that docs/ARCHITECTURE.md shows the layers that [TestImports] enforces.
func TestPicture(t *testing.T) {
	t.Parallel()
	const file, begin, end = "docs/ARCHITECTURE.md", "\n```layers\n", "```\n"
	text := read(t, file)
	before, rest, found := strings.Cut(text, begin)
	shown, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no block %q", file, strings.TrimSpace(begin))
	}
	if shown == picture() {
		return
	}
	if !*update {
		t.Errorf("%s does not show the layers of imports_test.go: run go test . -run TestPicture -update", file)
		return
	}
	if err := os.WriteFile(file, []byte(before+begin+picture()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// documents returns the paths of the Markdown files of the repository.
func documents(t *testing.T) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(d.Name(), ".") && d.Name() != "."
		if err == nil && d.IsDir() && (hidden || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if err == nil && strings.HasSuffix(path, ".md") {
			list = append(list, path)
		}
		return err
	})
	if err != nil || len(list) < 20 {
		t.Fatalf("%d documents, %v", len(list), err)
	}
	return list
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// prose returns the lines of a document that are outside fenced blocks.
func prose(text string) []string {
	var list []string
	fenced := false
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			line = ""
		}
		if fenced {
			line = ""
		}
		list = append(list, line)
	}
	return list
}

var (
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`^#+ (.+)$`)
	notAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns the fragments under which the headings of a document are linked.
func anchors(text string) []string {
	var list []string
	for _, line := range prose(text) {
		if m := heading.FindStringSubmatch(line); m != nil {
			anchor := notAnchor.ReplaceAllString(strings.ToLower(m[1]), "")
			list = append(list, strings.ReplaceAll(anchor, " ", "-"))
		}
	}
	return list
}

// TestDocumentLinks verifies that each link from a document to a file of the repository, and to a
// heading in it, leads somewhere.
func TestDocumentLinks(t *testing.T) {
	t.Parallel()
	checked := 0
	for _, path := range documents(t) {
		for number, line := range prose(read(t, path)) {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				file, fragment, _ := strings.Cut(m[1], "#")
				if strings.Contains(file, "://") || strings.HasPrefix(file, "mailto:") {
					continue
				}
				checked++
				to := path
				if file != "" {
					to = filepath.Join(filepath.Dir(path), file)
				}
				if _, err := os.Stat(to); err != nil {
					t.Errorf("%s:%d links to %s: there is no such file", path, number+1, to)
				} else if fragment != "" && !slices.Contains(anchors(read(t, to)), fragment) {
					t.Errorf("%s:%d links to the heading #%s, which %s does not have", path, number+1, fragment, to)
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("%d links were checked", checked)
	}
}

var (
	claimedTest  = regexp.MustCompile("`((?:Test|Fuzz|test)[A-Z]\\w*)(?:/\\w+)?`")
	declaredTest = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|test)[A-Z]\w*)\(`)
)

// TestSecurityClaims verifies that each test that docs/security.md names for a claim exists, and
// docs/ARCHITECTURE.md for a rule.
func TestSecurityClaims(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") {
			for _, m := range declaredTest.FindAllStringSubmatch(read(t, path), -1) {
				declared[m[1]] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for page, least := range map[string]int{"docs/security.md": 100, "docs/ARCHITECTURE.md": 10} {
		claims := claimedTest.FindAllStringSubmatch(read(t, page), -1)
		for _, m := range claims {
			if !declared[m[1]] {
				t.Errorf("%s names the test %s, which does not exist: name the test that shows the claim", page, m[1])
			}
		}
		if len(claims) < least {
			t.Errorf("%s names %d tests", page, len(claims))
		}
	}
}

// documentWidth is the most columns of a line of prose in a document.
const documentWidth = 160

// TestDocumentWidth verifies that prose can be read beside code: tables and blocks may be wider.
func TestDocumentWidth(t *testing.T) {
	t.Parallel()
	for _, path := range documents(t) {
		for number, line := range prose(read(t, path)) {
			if n := len([]rune(line)); n > documentWidth && !strings.HasPrefix(strings.TrimSpace(line), "|") {
				t.Errorf("%s:%d has %d columns; break it at %d or less", path, number+1, n, documentWidth)
			}
		}
	}
}
