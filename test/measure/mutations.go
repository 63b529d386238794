package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mutation is a rule of the product that is broken on purpose, and the test that must notice.
type mutation struct {
	name string
	// In file, which may be a pattern, old becomes new. It must occur exactly once, unless each asks
	// for one mutation for each time that it occurs.
	file, old, new string
	each           bool
	// pkg is the package whose tests run, and test the one that must fail, or where the package
	// panics at its start, before any test, a part of what it then says. Neither needs a database.
	pkg, test, panics string

	nth int // which of the places it is, from 1, of a mutation that came from each
}

// expand turns each mutation of many places into one for each place.
func expand(dir string, rows []mutation) (all []mutation, err error) {
	for _, m := range rows {
		list, wrong := m.expand(dir)
		all, err = append(all, list...), errors.Join(err, wrong)
	}
	return all, err
}

func (m mutation) expand(dir string) (list []mutation, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(m.file)))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		one := m
		one.file = filepath.ToSlash(strings.TrimPrefix(path, filepath.Clean(dir)+string(filepath.Separator)))
		for i := range strings.Count(string(text), m.old) {
			one.nth = i + 1
			list = append(list, one)
		}
	}
	if len(list) == 0 || len(list) > 1 && !m.each {
		return nil, fmt.Errorf("mutation %s: %s has %d times %q: update the row", m.name, m.file, len(list), m.old)
	}
	for i := range list {
		if m.each {
			list[i].name = fmt.Sprintf("%s/%d", m.name, i+1)
		}
	}
	return list, nil
}

// replaceNth replaces one occurrence of old.
func replaceNth(text, old, new string, nth int) string {
	at := 0
	for range nth {
		at += strings.Index(text[at:], old) + len(old)
	}
	return text[:at-len(old)] + new + text[at:]
}

// limit bounds the tests of one mutation.
const limit = 5 * time.Minute

// mutate applies each mutation to a copy of the tree and runs the test that must fail.
func mutate(w io.Writer, only string) error {
	rows := slices.DeleteFunc(slices.Clone(mutations), func(m mutation) bool { return !strings.Contains(m.name, only) })
	if len(rows) == 0 {
		return fmt.Errorf("no mutation has %q in its name", only)
	}
	dir, err := copyTree()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if rows, err = expand(dir, rows); err != nil {
		return err
	}
	if err := healthy(dir, rows); err != nil {
		return err
	}
	var survived []string
	for _, m := range rows {
		verdict := "fails " + cmp.Or(m.test, m.pkg)
		if err := m.apply(dir); err != nil {
			survived = append(survived, m.name)
			verdict = "NOT NOTICED: " + err.Error()
		}
		fmt.Fprintf(w, "mutation %s %s\n", m.name, verdict)
	}
	fmt.Fprintf(w, "mutations %d\nmutations_noticed %d\n", len(rows), len(rows)-len(survived))
	if len(survived) > 0 {
		return fmt.Errorf("%d mutations failed no named test: %s", len(survived), strings.Join(survived, ", "))
	}
	return nil
}

// healthy verifies that all the tests pass before anything is broken, and that they exist.
func healthy(dir string, rows []mutation) error {
	tests := map[string][]string{}
	for _, m := range rows {
		if m.test != "" && !slices.Contains(tests[m.pkg], m.test) {
			tests[m.pkg] = append(tests[m.pkg], m.test)
		}
	}
	for pkg, names := range tests {
		out, err := goTest(dir, pkg, names)
		if err != nil {
			return fmt.Errorf("%s fails without a mutation:\n%s", pkg, tail(out))
		}
		for _, name := range names {
			if !strings.Contains(out, "--- PASS: "+name+" ") {
				return fmt.Errorf("%s has no test %s", pkg, name)
			}
		}
	}
	return nil
}

// apply breaks the rule, runs the test, and restores the file. It returns nil when the test failed.
func (m mutation) apply(dir string) (err error) {
	path := filepath.Join(dir, filepath.FromSlash(m.file))
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(replaceNth(string(text), m.old, m.new, m.nth)), 0o600); err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, os.WriteFile(path, text, 0o600)) }()
	out, failed := goTest(dir, m.pkg, []string{m.test})
	switch {
	case failed == nil:
		return errors.New("the tests passed")
	case m.panics != "" && strings.Contains(out, "panic: ") && strings.Contains(out, m.panics):
		return err
	case m.panics != "":
		return fmt.Errorf("there is no panic that says %q: %s", m.panics, tail(out))
	case !strings.Contains(out, "--- FAIL: "+m.test+" "):
		return fmt.Errorf("%s did not run to its end: %s", m.test, tail(out))
	}
	return err
}

func goTest(dir, pkg string, tests []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, "go", "test", "-trimpath", "-count=1", "-v", "-vet=off",
		"-run", "^("+strings.Join(tests, "|")+")$", "./"+pkg)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err
}

// tail returns the last lines of an output.
func tail(out string) string {
	lines := split(out)
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// copyTree copies the files of this tree to a temporary directory.
func copyTree() (string, error) {
	paths, err := tracked(".")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "measure-tree-")
	if err != nil {
		return "", err
	}
	for _, path := range paths {
		if err := copyFile(path, filepath.Join(dir, path)); err != nil {
			_ = os.RemoveAll(dir)
			return "", err
		}
	}
	return dir, nil
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}
