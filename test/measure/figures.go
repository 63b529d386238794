package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// A base is a commit that the figures are compared with. The recorded figures serve a clone that
// lacks it; scripts/measure prints them under the same names in a clone that has it.
type base struct {
	suffix, commit string
	recorded       map[string]int
	// dir is where the commit is unpacked; empty when the clone lacks it.
	dir string
	all []*source
}

// bases returns the commits: "reviewed" is the one that first listed what this project keeps in
// several places, "start" the last before that changed, and "after" the first when it was done.
// Features were added between the first two, and after the last.
func bases() []*base {
	return []*base{
		{suffix: "_reviewed", commit: "52c29d8", recorded: map[string]int{
			"function_lines_p99":  42,
			"tokens_explore":      15378,
			"code_lines_explore":  1763,
			"tokens_api":          52198,
			"code_lines_api":      5639,
			"tokens_rotator":      8597,
			"code_lines_rotator":  983,
			"tokens_adapters":     9005,
			"code_lines_adapters": 1263,
			"tokens_product":      291649,
			"code_lines_product":  38152,
			"third_party_agent":   340,
			"third_party_cli":     408,
			"binary_kb_keyturn":   43675,
		}},
		{suffix: "_start", commit: "fb14f50", recorded: map[string]int{
			"function_lines_p99":  45,
			"tokens_explore":      15384,
			"code_lines_explore":  1763,
			"tokens_api":          67770,
			"code_lines_api":      7495,
			"tokens_rotator":      9580,
			"code_lines_rotator":  1093,
			"tokens_adapters":     9005,
			"code_lines_adapters": 1263,
			"tokens_product":      386791,
			"code_lines_product":  50891,
			"third_party_agent":   340,
			"third_party_cli":     408,
			"binary_kb_keyturn":   45187,
		}},
		{suffix: "_after", commit: "ce21d8f", recorded: map[string]int{}},
	}
}

// group is a set of packages whose size is compared. Those to which the change moved something are
// groups too, so that nothing moves out of sight.
type group struct {
	name string
	dirs []string // patterns of path.Match
}

var groups = []group{
	{"explore", []string{"internal/rotation/explore"}},
	{"api", []string{"internal/api", "internal/api/*"}},
	{"rotator", []string{"internal/rotator"}},
	{"rotation", []string{"internal/rotation"}},
	{"declarations", []string{"internal/protocol", "internal/operation", "internal/policy", "kms", "ram"}},
	{"adapters", []string{"consumer/*auth", "consumer/internal/drain", "consumer/internal/adapter"}},
}

// linked is a package whose third-party packages are counted; most bounds their number, or 0:
// fewer than at the start.
type linked struct {
	name, dir string
	most      int
}

var links = []linked{
	{"agent", "./internal/agent", 60},
	{"cli", "./internal/cli", 0},
}

// report prints figures and collects the bounds that do not hold.
type report struct {
	w      io.Writer
	broken []string
}

func (r *report) figure(name string, value any) { fmt.Fprintf(r.w, "%s %v\n", name, value) }

// bound prints a figure whose bound is given in words, and whether it holds.
func (r *report) bound(name string, value any, holds bool, bound string) {
	if holds {
		r.figure(name, value)
		return
	}
	fmt.Fprintf(r.w, "%s %v (must be %s)\n", name, value, bound)
	r.broken = append(r.broken, name)
}

func (r *report) most(name string, value, most int) {
	r.bound(name, value, value <= most, fmt.Sprintf("at most %d", most))
}

func (r *report) err() error {
	if len(r.broken) == 0 {
		return nil
	}
	return fmt.Errorf("%d bounds do not hold: %s", len(r.broken), strings.Join(r.broken, ", "))
}

// figures prints the figures of this tree, and the bounds that it breaks.
func figures(w io.Writer, quick bool) error {
	r := &report{w: w}
	paths, err := tracked(".")
	if err != nil {
		return err
	}
	all, err := load(".", paths)
	if err != nil {
		return err
	}
	r.shape(all)
	before := bases()
	for _, b := range before {
		clean, err := b.unpack()
		if err != nil {
			return err
		}
		defer clean()
	}
	r.sizes(all, before)
	if !quick {
		if err := errors.Join(r.links(before), r.binaries(before)); err != nil {
			return err
		}
	}
	return r.err()
}

// shape prints what can be said of one tree alone.
func (r *report) shape(all []*source) {
	lengths := functionLines(all)
	r.figure("functions", len(lengths))
	r.most("function_lines_median", quantile(lengths, 0.5), 10)
	r.most("function_lines_p99", quantile(lengths, 0.99), 42)
	r.figure("function_lines_max", quantile(lengths, 1))

	var long, longAPI, wide []string
	lines, comments, names := 0, 0, 0
	var undocumented []string
	for _, s := range all {
		if !isProduct(s.path) {
			continue
		}
		lines, comments = lines+len(s.lines), comments+s.comment
		if len(s.lines) > 400 {
			long = append(long, fmt.Sprintf("%s:%d", s.path, len(s.lines)))
			if strings.HasPrefix(s.path, "internal/api/") {
				longAPI = append(longAPI, s.path)
			}
		}
		for i, line := range s.lines {
			if width(line) > maxWidth {
				wide = append(wide, fmt.Sprintf("%s:%d", s.path, i+1))
			}
		}
		n, without := exported(s)
		names, undocumented = names+n, append(undocumented, without...)
	}
	r.list("files_over_400_lines", long)
	r.most("files_over_400_lines", len(long), 8)
	r.most("files_over_400_lines_api", len(longAPI), 0)
	r.list("lines_over_120_columns", wide)
	r.most("lines_over_120_columns", len(wide), 0)
	share := 100 * float64(names-len(undocumented)) / float64(max(names, 1))
	r.list("exported_documented_percent", undocumented)
	r.bound("exported_documented_percent", fmt.Sprintf("%.1f", share), share >= 99, "at least 99")
	r.figure("exported_names", names)
	r.figure("comment_percent", fmt.Sprintf("%.1f", 100*float64(comments)/float64(max(lines, 1))))
}

// list prints the first few members of what a bound counts, to standard error.
func (r *report) list(name string, members []string) {
	const most = 12
	for _, m := range members[:min(len(members), most)] {
		fmt.Fprintf(os.Stderr, "measure: %s: %s\n", name, m)
	}
	if len(members) > most {
		fmt.Fprintf(os.Stderr, "measure: %s: and %d more\n", name, len(members)-most)
	}
}

// sizes prints the size of the groups beside their sizes at the bases, in lines of code and in
// tokens: lines grow when a literal is broken into one field per line, as the style demands, and
// tokens do not. Neither counts comments. There is no bound, since features grow a group: the
// bases "start" and "after" are the same product before and after the change that they show.
func (r *report) sizes(all []*source, before []*base) {
	for _, b := range before {
		r.base(b, "function_lines_p99", func() int { return quantile(functionLines(b.all), 0.99) })
	}
	for _, g := range append(slices.Clone(groups), group{name: "product"}) {
		for _, b := range before {
			r.base(b, "tokens_"+g.name, func() int { n, _ := total(b.all, g.dirs); return n })
			r.base(b, "code_lines_"+g.name, func() int { _, n := total(b.all, g.dirs); return n })
		}
		tokens, lines := total(all, g.dirs)
		r.figure("tokens_"+g.name, tokens)
		r.figure("code_lines_"+g.name, lines)
	}
}

// base prints a figure of a base, measured or recorded, and returns it.
func (r *report) base(b *base, name string, measure func() int) int {
	n := b.recorded[name]
	if b.dir != "" {
		n = measure()
	}
	r.figure(name+b.suffix, n)
	return n
}

// total counts the tokens and lines of code of the packages that match, or of the whole product
// without patterns.
func total(all []*source, patterns []string) (tokens, lines int) {
	for _, s := range all {
		dir := path.Dir(s.path)
		matches := func(p string) bool { ok, _ := path.Match(p, dir); return ok }
		if patterns == nil && isProduct(s.path) || slices.ContainsFunc(patterns, matches) {
			tokens, lines = tokens+s.tokens, lines+s.code
		}
	}
	return tokens, lines
}

// links counts the third-party packages that a package links.
func (r *report) links(before []*base) error {
	var failed error
	count := func(dir, pkg string) int {
		n, err := thirdParty(dir, pkg)
		failed = errors.Join(failed, err)
		return n
	}
	for _, l := range links {
		most := 0
		for _, b := range before {
			most = r.base(b, "third_party_"+l.name, func() int { return count(b.dir, l.dir) })
		}
		if l.most > 0 {
			most = l.most + 1
		}
		now := count(".", l.dir)
		r.bound("third_party_"+l.name, now, now < most, fmt.Sprintf("fewer than %d", most))
	}
	return failed
}

func thirdParty(dir, pkg string) (int, error) {
	out, err := goTool(dir, "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, name := range strings.Fields(out) {
		if !strings.HasPrefix(name, "github.com/keyturn/keyturn") {
			n++
		}
	}
	return n, nil
}

// binaries prints the size of each command in kB, without symbols.
func (r *report) binaries(before []*base) error {
	now, err := build(".")
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		r.figure("binary_kb_"+strings.ReplaceAll(name, "-", "_"), now[name]/1000)
	}
	for _, b := range before {
		var then map[string]int
		if b.dir != "" {
			if then, err = build(b.dir); err != nil {
				return err
			}
		}
		r.base(b, "binary_kb_keyturn", func() int { return then["keyturn"] / 1000 })
	}
	return nil
}

// build builds every command of a tree and returns their sizes by name.
func build(dir string) (map[string]int, error) {
	out, err := os.MkdirTemp("", "measure-bin-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(out) }()
	if _, err := goTool(dir, "build", "-trimpath", "-ldflags=-s -w", "-o", out+string(filepath.Separator),
		"./cmd/..."); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(out)
	if err != nil {
		return nil, err
	}
	sizes := map[string]int{}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		sizes[e.Name()] = int(info.Size())
	}
	return sizes, nil
}

func goTool(dir string, args ...string) (string, error) {
	c := exec.Command("go", args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("go %s in %s: %w\n%s", args[0], dir, err, stderr.Bytes())
	}
	return string(out), nil
}

// unpack unpacks the commit into a temporary directory and parses it.
func (b *base) unpack() (clean func(), err error) {
	clean = func() {}
	out, err := exec.Command("git", "archive", b.commit).Output()
	if err != nil {
		fmt.Fprintf(os.Stderr, "measure: this clone lacks commit %s: its figures are recorded ones\n", b.commit)
		return clean, nil
	}
	dir, err := os.MkdirTemp("", "measure-base-")
	if err != nil {
		return clean, err
	}
	clean = func() { _ = os.RemoveAll(dir) }
	for archive := tar.NewReader(bytes.NewReader(out)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = unpack(dir, header, archive)
		}
		if err != nil {
			return clean, fmt.Errorf("unpack %s: %w", b.commit, err)
		}
	}
	b.dir = dir
	paths, err := tracked(dir)
	if err == nil {
		b.all, err = load(dir, paths)
	}
	return clean, err
}

func unpack(dir string, header *tar.Header, from io.Reader) error {
	if header.Typeflag != tar.TypeReg || !filepath.IsLocal(header.Name) {
		return nil
	}
	to := filepath.Join(dir, header.Name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	text, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, header.FileInfo().Mode().Perm())
}

// tracked lists the files of a tree below root, with slashes: those that git knows or would add,
// or every file of a directory that is no clone.
func tracked(root string) ([]string, error) {
	if root == "." {
		out, err := git("ls-files", "-co", "--exclude-standard", "-z")
		var present []string
		for name := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
			if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() {
				present = append(present, name)
			}
		}
		return present, err
	}
	var all []string
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(root, p)
			all = append(all, filepath.ToSlash(name))
		}
		return err
	})
	return all, err
}

// width counts the characters of a line; a tab counts as one, as in gofmt's own output.
func width(line string) int { return utf8.RuneCountInString(line) }
