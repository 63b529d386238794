package cli

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/protocol"
)

// TestDocumentedCommands verifies that each keyturn command in a fenced block of README.md and docs
// parses: its words, flags and required arguments exist in the program.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	pages, checked := []string{filepath.Join("..", "..", "README.md")}, 0
	err := filepath.WalkDir(filepath.Join("..", "..", "docs"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".md") {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	parser, err := newParser(&env{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range fencedLines(string(text)) {
			for _, args := range commandsIn(line) {
				checked++
				_, err := parser.Parse(args)
				if err == nil && args[0] == "kms" {
					err = checkOperation(args[1:])
				}
				if err != nil {
					t.Errorf("%s: keyturn %s: %v", page, strings.Join(args, " "), err)
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("%d commands were checked", checked)
	}
}

// checkOperation verifies that keyturn kms takes the operation and its parameters.
func checkOperation(args []string) error {
	args = slices.Clone(args)
	for i, arg := range args[:len(args)-1] {
		if strings.HasSuffix(arg, "-FILE") {
			args[i+1] = os.DevNull
		}
	}
	call, err := parseKms(args)
	if err != nil {
		return err
	}
	if _, err := call.check(); err != nil {
		return err
	}
	for _, given := range call.params {
		name, _, _ := strings.Cut(given.Name, ".")
		known := false
		for _, p := range protocol.Named(call.operation).Params() {
			known = known || p.Name == name
		}
		if !known {
			return fmt.Errorf("%s has no parameter %s", call.operation, given.Name)
		}
	}
	return nil
}

// fencedLines returns the lines of a page's fenced blocks of commands, which name no language or
// sh. A line that ends in \ is one with the next.
func fencedLines(text string) []string {
	var list []string
	open, commands, rest := false, false, ""
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "```") {
			language := strings.TrimPrefix(line, "```")
			open, commands, rest = !open, !open && (language == "" || language == "sh"), ""
			continue
		}
		if !commands {
			continue
		}
		if head, more := strings.CutSuffix(line, `\`); more {
			rest += head
			continue
		}
		list = append(list, rest+line)
		rest = ""
	}
	return list
}

// commandsIn returns the arguments of each keyturn command in a line of a shell.
func commandsIn(line string) [][]string {
	var list [][]string
	var args []string
	end := func() {
		if len(args) > 1 && args[0] == "$" {
			args = args[1:]
		}
		if len(args) > 1 && args[0] == "keyturn" {
			list = append(list, args[1:])
		}
		args = nil
	}
	redirected := false
	for _, w := range shellWords(line) {
		switch {
		case w == "#" || strings.HasPrefix(w, "#"):
			end()
			return list
		case w == "|" || w == "&&" || w == ";":
			end()
		case w == ">" || w == "<":
			redirected = true
		case strings.HasPrefix(w, "<<"):
		case redirected:
			redirected = false
		case w == "…":
		default:
			args = append(args, existing(w))
		}
	}
	end()
	return list
}

// existing returns a file that exists for the name of one that an example reads.
func existing(word string) string {
	extension := filepath.Ext(word)
	if !strings.Contains(word, "=") && slices.Contains([]string{".json", ".key", ".pem"}, extension) {
		return os.DevNull
	}
	return word
}

// shellWords splits a line at spaces outside quotes and $(…), and removes the quotes.
func shellWords(line string) []string {
	var words []string
	var word strings.Builder
	var quote rune
	begun, escaped, depth := false, false, 0
	for _, r := range line + " " {
		switch {
		case escaped:
			escaped = false
			word.WriteRune(r)
		case r == '\\' && quote != '\'':
			escaped = true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, begun = r, true
		case quote == 0 && depth == 0 && r == ' ':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			if r == '(' {
				depth++
			} else if r == ')' {
				depth--
			}
			begun = true
			word.WriteRune(r)
		}
	}
	return words
}
