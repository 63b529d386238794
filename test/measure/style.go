package main

import (
	"fmt"
	"go/scanner"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ratchetFile records how many matches of each rule the tree may have. The counts are of the
// whole tree, so a line that moves to another file costs nothing.
const ratchetFile = "scripts/style.txt"

// rule is something that new text must not have.
type rule struct {
	name string
	// words matches text of comments, of string literals and of documents; nil for a rule about
	// widths.
	words *regexp.Regexp
	// advice says what to write instead.
	advice string
}

var rules = []rule{
	{
		"width-code",
		nil,
		"break the line: one field of a literal per line, one clause of a condition per line (at most 120)",
	},
	{
		"width-test",
		nil,
		"break the line: one field of a literal per line, one clause of a condition per line (at most 120)",
	},
	{"width-comment", nil, "break the comment at 100 columns"},
	word("whoever", `whoever|whomever`, `"the caller", "the operator" or a plain "who"`),
	word("told", `tells?|told|telling`, `"report", "notify", "return" or "show"`),
	word("mend", `mend(s|ed|ing)?`, `"fix"`),
	word("put-back", `(put|puts|putting) (it |them |that )?back`, `"restore"`),
	word("put-right", `(put|puts|set|sets) (it |them |that )?right`, `"correct" or "clamp"`),
	word("by-itself", `by (itself|themselves)`, `"automatically"`),
	{"say", regexp.MustCompile(`(?i), say\b[^"]`), `"for example"`},
	word("a-person", `a person|somebody|someone|anybody|anyone`, `"an operator", "a caller" or "a consumer"`),
	word("nobody", `nobody|no-one`, `"no consumer", "no caller" or the passive voice`),
	word("holds-that", `holds that|hold that`, `"verifies that"`),
	word("let-go-on", `(let|lets|is let) go on`, `"resumes" or "continues"`),
	word("look-at", `(look|looks|looked|looking) at`, `"check", "inspect" or "read"`),
	word("that-of", `that of|those of|than it was`, "the name of the thing"),
	word("gone", `is gone|are gone|that was gone`, `"deleted", "removed" or "no longer exists"`),
	word("any-more", `any more`, `"no longer"`),
	word("is-an-error", `is an error|are an error`, `"must", in a sentence that says what is allowed`),
	{
		"subject",
		regexp.MustCompile(`^\s*(//|-|\*)? ?(What|Who|Whoever|That of|Those of)\b[^?]*$`),
		"the name of the thing as the subject",
	},
}

func word(name, pattern, advice string) rule {
	return rule{name, regexp.MustCompile(`(?i)\b(` + pattern + `)\b`), advice}
}

// match is one line that a rule matches.
type match struct {
	path string
	line int
	text string
	what string // the words found
}

// style compares the matches of every rule with the counts of the ratchet file.
func style(w io.Writer, update, list bool) error {
	paths, err := tracked(".")
	if err != nil {
		return err
	}
	found := map[string][]match{}
	for _, path := range paths {
		if err := inspect(path, found); err != nil {
			return err
		}
	}
	allowed, err := readRatchet()
	if err != nil && !update {
		return err
	}
	if list {
		for _, r := range rules {
			for _, m := range found[r.name] {
				fmt.Fprintf(w, "%s:%d: %s: %s\n", m.path, m.line, r.name, m.what)
			}
		}
		return nil
	}
	if update {
		return writeRatchet(w, found, allowed)
	}
	return judge(w, found, allowed)
}

// judge reports the rules that have more matches than allowed, and each line that was added since
// the counts were written.
func judge(w io.Writer, found map[string][]match, allowed map[string]int) error {
	var broken []string
	lower := 0
	added := addedLines()
	for _, r := range rules {
		most, known := allowed[r.name]
		n := len(found[r.name])
		lower += max(0, most-n)
		if known && n <= most {
			continue
		}
		if !known {
			return fmt.Errorf("%s has no count for %s: run scripts/measure style -update", ratchetFile, r.name)
		}
		broken = append(broken, r.name)
		fmt.Fprintf(w, "style: %s: %d matches, %d allowed; write instead: %s\n", r.name, n, most, r.advice)
		shown := 0
		for _, m := range found[r.name] {
			if added == nil || added[m.path][m.text] {
				fmt.Fprintf(w, "%s:%d: %s: write %s\n", m.path, m.line, m.what, r.advice)
				if shown++; added == nil && shown == 20 {
					break
				}
			}
		}
	}
	if len(broken) > 0 {
		return fmt.Errorf("more matches than %s allows: %s", ratchetFile, strings.Join(broken, ", "))
	}
	if lower > 0 {
		fmt.Fprintf(w, "style: ok; %d fewer matches than recorded: scripts/measure style -update records that\n", lower)
	}
	return nil
}

// inspect adds the matches of one file. The table of the rules itself, and the tests of it, are
// full of words to avoid.
func inspect(path string, found map[string][]match) error {
	isGo, isDoc := strings.HasSuffix(path, ".go"), strings.HasSuffix(path, ".md")
	if !isGo && !isDoc || strings.Contains(path, "testdata/") || strings.HasPrefix(path, "test/measure/style") {
		return nil
	}
	text, err := os.ReadFile(filepath.FromSlash(path))
	if err != nil {
		return err
	}
	add := func(rule string, line int, text, what string) {
		found[rule] = append(found[rule], match{path, line, text, what})
	}
	lines := split(string(text))
	words := map[int][]string{} // the text of each line in which words count
	if isDoc {
		code := false
		for i, line := range lines {
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				code = !code
			} else if !code {
				words[i+1] = append(words[i+1], line)
			}
		}
	} else {
		comments := prose(path, text, words)
		for i, line := range lines {
			switch {
			case comments[i+1] && width(line) > maxComment:
				add("width-comment", i+1, line, fmt.Sprintf("%d columns", width(line)))
			case comments[i+1] || width(line) <= maxWidth:
			case isProduct(path):
				add("width-code", i+1, line, fmt.Sprintf("%d columns", width(line)))
			default:
				add("width-test", i+1, line, fmt.Sprintf("%d columns", width(line)))
			}
		}
	}
	for i, line := range lines {
		for _, part := range words[i+1] {
			for _, r := range rules {
				if r.words == nil {
					continue
				}
				for _, what := range r.words.FindAllString(part, -1) {
					add(r.name, i+1, line, strconv.Quote(strings.TrimSpace(what)))
				}
			}
		}
	}
	return nil
}

// prose collects the comments and string literals of a Go file by line, and returns the lines that are comments alone.
func prose(path string, text []byte, words map[int][]string) (comments map[int]bool) {
	comments = map[int]bool{}
	files := token.NewFileSet()
	file := files.AddFile(path, -1, len(text))
	var scan scanner.Scanner
	scan.Init(file, text, nil, scanner.ScanComments)
	code := map[int]bool{}
	for {
		pos, t, literal := scan.Scan()
		if t == token.EOF {
			break
		}
		first := file.Line(pos)
		if t != token.COMMENT && t != token.STRING {
			if t != token.SEMICOLON || literal != "\n" {
				code[first] = true
			}
			continue
		}
		for i, part := range strings.Split(literal, "\n") {
			words[first+i] = append(words[first+i], part)
			if t == token.COMMENT {
				comments[first+i] = true
			}
		}
	}
	for line := range code {
		delete(comments, line)
	}
	return comments
}

// addedLines returns the lines that the tree has beyond those of the commit that wrote the counts, by file; nil when the
// clone lacks that commit.
func addedLines() map[string]map[string]bool {
	commit, err := git("log", "-1", "--format=%H", "--", ratchetFile)
	if commit = strings.TrimSpace(commit); err != nil || commit == "" {
		return nil
	}
	diff, err := git("diff", "--no-color", "--no-ext-diff", "-U0", commit)
	if err != nil {
		return nil
	}
	added, path := map[string]map[string]bool{}, ""
	for line := range strings.SplitSeq(diff, "\n") {
		if name, ok := strings.CutPrefix(line, "+++ b/"); ok {
			path = name
			added[path] = map[string]bool{}
		} else if text, ok := strings.CutPrefix(line, "+"); ok && added[path] != nil {
			added[path][text] = true
		}
	}
	if len(added) == 0 {
		return nil
	}
	return added
}

func readRatchet() (map[string]int, error) {
	text, err := os.ReadFile(ratchetFile)
	if err != nil {
		return nil, err
	}
	allowed := map[string]int{}
	for i, line := range split(string(text)) {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, count, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(count)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: want a name and a count, not %q", ratchetFile, i+1, line)
		}
		allowed[name] = n
	}
	return allowed, nil
}

// writeRatchet writes the present counts. It raises none: a rule that is new gets the count that it finds.
func writeRatchet(w io.Writer, found map[string][]match, allowed map[string]int) error {
	var b strings.Builder
	b.WriteString("# How many lines may break each rule of style (test/measure/style.go). Counts may only fall:\n" +
		"# scripts/measure style -update writes lower ones.\n")
	var raised []string
	for _, r := range rules {
		n := len(found[r.name])
		if most, known := allowed[r.name]; known && n > most {
			raised = append(raised, r.name)
			n = most
		}
		fmt.Fprintf(&b, "%s %d\n", r.name, n)
	}
	if err := os.WriteFile(ratchetFile, []byte(b.String()), 0o644); err != nil {
		return err
	}
	slices.Sort(raised)
	if len(raised) > 0 {
		return fmt.Errorf("these have more matches than recorded, and keep their count: %s", strings.Join(raised, ", "))
	}
	fmt.Fprintf(w, "style: wrote %s\n", ratchetFile)
	return nil
}
