package main

import (
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// task is something that a maintainer does again and again, and the commits that show how many places it touches.
type task struct {
	name string
	// before and after are subjects of commits on any branch; an empty one has no sample.
	before, after string
	// counted is how many places a reader of 52c29d8 counted, for a task that no commit of that time
	// does alone; 0 where there is no count.
	counted int
}

// maxPlaces is how many places a task may touch.
const maxPlaces = 4

var tasks = []task{
	{
		name:   "operation",
		before: "rotation: cancel a rotation whose candidate the target does not have",
		after:  "sample: an operation is declared in four places",
	},
	{name: "condition_operator", after: "sample: a condition operator is declared in four places"},
	{
		name:   "target_kind",
		before: "rabbitmq: rotate users' passwords through the management API",
		after:  "sample: a target kind is declared in four places",
	},
	{name: "grace_rule", before: "rotation: a grace period ends when every known consumer has moved"},
	{name: "command", after: "sample: a command is declared in one place"},
	{name: "error_code", after: "sample: an error code is declared in four places"},
	{name: "record_type", after: "sample: a record type is declared in four places"},
	{name: "metric", after: "sample: a metric is declared in two places"},
	{
		name:    "setting",
		after:   "sample: a setting idle-timeout, how long a connection stays open without a request",
		counted: 7,
	},
	{name: "adapter", after: "sample: an adapter for net/smtp is added in four places"},
	{name: "audit_member", after: "sample: a member of audit records is declared in two places"},
	{name: "rotation_state", after: "sample: a rotation state is declared in four places", counted: 10},
}

// places prints the files that the sample commits touched, by kind, and the number of places: files
// other than goldens, the change log and tests that the commit adds. The files of a folder that the
// commit makes are one place together.
func places(w io.Writer) error {
	out, err := git("log", "--all", "--format=%H %s")
	if err != nil {
		return err
	}
	commits := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		commit, subject, _ := strings.Cut(line, " ")
		commits[subject] = commit
	}
	var broken []string
	for _, t := range tasks {
		for _, side := range []struct{ name, subject string }{{"before", t.before}, {"after", t.after}} {
			if side.subject == "" && side.name == "before" && t.counted > 0 {
				fmt.Fprintf(w, "places_%s_before %d\n", t.name, t.counted)
				continue
			}
			if side.subject == "" {
				fmt.Fprintf(w, "places_%s_%s none\n", t.name, side.name)
				continue
			}
			commit, known := commits[side.subject]
			if !known {
				return fmt.Errorf("no branch has a commit %q, the sample of %s", side.subject, t.name)
			}
			n, err := printPlaces(w, t.name+"_"+side.name, commit)
			if err != nil {
				return err
			}
			if side.name == "after" && n > maxPlaces {
				broken = append(broken, t.name)
			}
		}
	}
	if len(broken) > 0 {
		return fmt.Errorf("more than %d places: %s", maxPlaces, strings.Join(broken, ", "))
	}
	return nil
}

func printPlaces(w io.Writer, name, commit string) (int, error) {
	out, err := git("show", "--format=", "--name-status", "--no-renames", commit)
	if err != nil {
		return 0, err
	}
	kinds := map[string][]string{}
	folders := map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
		status, file, _ := strings.Cut(line, "\t")
		kind := kindOf(status, file)
		if status == "A" && kind == "code" {
			isNew, known := folders[path.Dir(file)]
			if !known {
				isNew = !exists(commit+"~", path.Dir(file))
				folders[path.Dir(file)] = isNew
			} else if isNew {
				continue // with the first file of the new folder
			}
		}
		kinds[kind] = append(kinds[kind], file)
	}
	n := len(kinds["code"]) + len(kinds["list in a test"]) + len(kinds["document"])
	fmt.Fprintf(w, "places_%s %d\n", name, n)
	for _, kind := range []string{"code", "list in a test", "document", "new test", "golden"} {
		slices.Sort(kinds[kind])
		for _, file := range kinds[kind] {
			fmt.Fprintf(w, "#   %s: %s\n", kind, file)
		}
	}
	return n, nil
}

// exists reports whether a commit has a path.
func exists(commit, name string) bool {
	_, err := git("cat-file", "-e", commit+":"+name)
	return err == nil
}

// kindOf says what a file is to the one who has to touch it.
func kindOf(status, file string) string {
	switch {
	case strings.Contains(file, "testdata/") || file == "CHANGELOG.md" || file == "go.sum":
		return "golden"
	case strings.HasSuffix(file, "_test.go") && status == "A":
		return "new test"
	case strings.HasSuffix(file, "_test.go") || strings.HasPrefix(file, "test/"):
		return "list in a test"
	case path.Ext(file) == ".md":
		return "document"
	}
	return "code"
}
