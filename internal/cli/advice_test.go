package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/internal/protocol"
)

var (
	humps     = regexp.MustCompile(`[A-Z][a-z]+`)
	aWord     = regexp.MustCompile(`[A-Za-z:]+`)
	aCommand  = regexp.MustCompile(`keyturn (?:rotation|target|secret|user|group|policy|profile|root-key|ca) [a-z-]+`)
	anExample = regexp.MustCompile(`such (as|operation)`)
	// anArgument is a placeholder such as NAME, a setting such as database=NAME, a verb of a format,
	// or a path.
	anArgument = regexp.MustCompile(`^'?(%(\[\d+\])?[sqd]|[a-z_.]+=|[A-Z][A-Z_]*\b|\S+/)`)
)

// TestAdviceNamesCommands verifies that a sentence for an operator has commands as they are typed,
// and names an operation of the API only beside its command.
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
			for _, i := range aCommand.FindAllStringIndex(s.text, -1) {
				commands++
				if strings.Contains(s.text[i[1]:], " --yes") {
					t.Errorf("%s: a printed command asks, so it has no --yes: %s", s.at, s.text)
				}
				if fault := faultOf(parser.Model.Node, strings.Fields(s.text[i[0]:])[1:]); fault != "" {
					t.Errorf("%s: %q %s: %s", s.at, s.text[i[0]:i[1]], fault, s.text)
				}
			}
		}
	}
	if commands < 30 {
		t.Errorf("%d commands were found", commands)
	}
}

// sums are functions of other packages that write a text without the rule for names, see
// [TestCommandsTakeAnyName].
var sums = []string{"fmt.Sprintf", "fmt.Fprintf", "fmt.Printf", "fmt.Errorf"}

var (
	// nameOf is a command that has a verb of a format, or NAME, for its name; and then a flag.
	nameOf = regexp.MustCompile(
		`keyturn (?:(?:rotation|secret|target) [a-z-]+|profile (?:remove|secret)) (?:%(?:\[\d+\])?s|NAME)`)
	// openFlag is a flag behind such a name, or flags, whose value does not follow =.
	openFlag = regexp.MustCompile(nameOf.String() +
		`(?: --[a-z-]+(?:=(?:'[^']*'|\S+))?)*? --([a-z-]+)(?: |[.,;:)]|$)`)
	// endsOpen is a text that a name is appended to.
	endsOpen = regexp.MustCompile(
		`keyturn (?:(?:rotation|secret|target) [a-z-]+|profile (?:remove|secret)) (?:--\S+ )*$`)
	// flagFirst is a command with a flag before its name.
	flagFirst = regexp.MustCompile(`keyturn [a-z-]+ [a-z-]+ --[a-z-]+(?:[= ]\S+)? (?:%(?:\[\d+\])?s|NAME)`)
)

// TestCommandsTakeAnyName verifies that the source has each command with a name where a name that
// begins with a hyphen is put behind the flags: in a format of package fault, or with NAME in a
// text for fault.Named. There a flag has its value behind =, because the command would have no end.
func TestCommandsTakeAnyName(t *testing.T) {
	t.Parallel()
	parser, err := newParser(&env{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	withValue := map[string]bool{}
	for _, path := range []string{"rotation", "secret", "target", "profile"} {
		for _, group := range parser.Model.Children {
			if group.Name != path {
				continue
			}
			for _, command := range group.Children {
				for _, flag := range command.Flags {
					if !flag.IsBool() {
						withValue[command.Name+" "+flag.Name] = true
					}
				}
			}
		}
	}
	formats := 0
	for _, dir := range []string{"api", "cli", "rotation", "rotator", "secret", "target", "server", "store"} {
		for _, s := range sentences(t, filepath.Join("..", dir)) {
			if nameOf.MatchString(s.text) {
				formats++
			}
			for _, m := range openFlag.FindAllStringSubmatch(s.text, -1) {
				if verb := strings.Fields(m[0])[2]; withValue[verb+" "+m[1]] {
					t.Errorf("%s: write the value of --%s behind =: %s", s.at, m[1], s.text)
				}
			}
			if flagFirst.MatchString(s.text) {
				t.Errorf("%s: write the name before the flags: %s", s.at, s.text)
			}
			if slices.Contains(sums, s.of) && strings.Contains(nameOf.FindString(s.text), "%") {
				t.Errorf("%s: use fault.Message or fault.Command: %s", s.at, s.text)
			}
			if s.open {
				t.Errorf("%s: use fault.Message or fault.Command: %s", s.at, s.text)
			}
		}
	}
	if formats < 30 {
		t.Errorf("%d formats were found", formats)
	}
}

// isOpen reports whether a sum appends anything but a literal to the beginning of a command.
func isOpen(e ast.Expr) bool {
	sum, ok := e.(*ast.BinaryExpr)
	if !ok {
		return false
	}
	left, isText := textOf(sum.X)
	_, more := textOf(sum.Y)
	return isText && !more && endsOpen.MatchString(left) || isOpen(sum.X) || isOpen(sum.Y)
}

// faultOf says why words do not begin with a command as it is typed: with its required arguments,
// and with flags that it has; empty if they do. "keyturn COMMAND --help" needs no arguments.
func faultOf(node *kong.Node, words []string) string {
	for ; len(node.Children) > 0; words = words[1:] {
		if len(words) == 0 {
			return "is no command"
		}
		word, ended := endOf(words[0])
		i := slices.IndexFunc(node.Children, func(child *kong.Node) bool { return child.Name == word })
		if i < 0 || ended && len(node.Children[i].Children) > 0 {
			return "is no command"
		}
		if node = node.Children[i]; ended {
			words = words[:1]
		}
	}
	missing := map[string]bool{}
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			missing[flag.Name] = flag.Required
		}
	}
	given := 0
	for ended := false; len(words) > 0 && !ended; words = words[1:] {
		var word string
		word, ended = endOf(words[0])
		name, isFlag := strings.CutPrefix(word, "--")
		name, _, hasValue := strings.Cut(name, "=")
		flag := namedFlag(node, name)
		switch {
		case name == "help":
			return ""
		case isFlag && flag == nil:
			return "has no flag --" + name
		case isFlag && !flag.IsBool() && !hasValue && (ended || len(words) < 2 || !isValue(flag, words[1])):
			return "has no value for --" + name
		case isFlag && !flag.IsBool() && !hasValue:
			words = words[1:]
			_, ended = endOf(words[0])
		case isFlag:
		case isArgument(word) && given < len(node.Positional):
			given++
		default:
			words, ended = words[:1], true
		}
		delete(missing, name)
	}
	for i, argument := range node.Positional {
		if argument.Required && i >= given {
			return "lacks <" + argument.Name + ">"
		}
	}
	for name, required := range missing {
		if required {
			return "lacks --" + name
		}
	}
	return ""
}

// endOf returns a word without the punctuation that ends it, or a clause after it.
func endOf(word string) (bare string, ended bool) {
	bare = strings.TrimRight(word, "`.,;:)\"\n")
	return bare, bare != word
}

// isArgument reports whether a word of a sentence stands for an argument: a placeholder, a verb of
// a format or a path.
func isArgument(word string) bool { return anArgument.MatchString(word) }

// isValue reports whether a word of a sentence stands for the value of a flag, or is one.
func isValue(flag *kong.Flag, word string) bool {
	bare, _ := endOf(word)
	return isArgument(word) || slices.Contains(flag.EnumSlice(), bare)
}

func namedFlag(node *kong.Node, name string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, flag := range group {
			if flag.Name == name {
				return flag
			}
		}
	}
	return nil
}

// sentence is a text in the source that has a space. Whatever is put into it is NAME.
type sentence struct {
	at, text    string
	ofParameter bool   // says what is wrong with a parameter, which [inFlags] shows as a flag
	of          string // the function of another package that it is the format of; empty for none
	open        bool   // see [isOpen]
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
		formats := map[ast.Node]string{}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field: // its tag is none
				return n.Tag == nil
			case *ast.CallExpr:
				if f, ok := n.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "Parameter" {
					end = n.End()
				}
				if f, ok := n.Fun.(*ast.SelectorExpr); ok {
					if of, ok := f.X.(*ast.Ident); ok {
						for _, argument := range n.Args {
							formats[argument] = of.Name + "." + f.Sel.Name
						}
					}
				}
			case ast.Expr:
				text, ok := textOf(n)
				if strings.Contains(text, " ") {
					found = append(found, sentence{
						at:          positions.Position(n.Pos()).String(),
						text:        text,
						ofParameter: n.Pos() < end,
						of:          formats[n],
						open:        isOpen(n),
					})
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
