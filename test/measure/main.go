// Command measure measures the source of the project. Its commands:
//
//	measure                figures of the code, one a line, name and value
//	measure mutations      breaks rules of the product on purpose, one at a time, and expects a named test to fail
//	measure places         files that real commits touched for common tasks
//	measure style          words and widths against the counts in scripts/style.txt, which may only fall
//
// Each command exits non-zero when a bound does not hold. scripts/measure runs it from the root
// of the repository.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

func main() {
	command, args := "figures", os.Args[1:]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("measure "+command, flag.ExitOnError)
	var run func(io.Writer) error
	switch command {
	case "figures":
		quick := flags.Bool("quick", false, "measure the source alone: list no packages and build nothing")
		run = func(w io.Writer) error { return figures(w, *quick) }
	case "mutations":
		only := flags.String("run", "", "apply only the mutations whose name contains this text")
		run = func(w io.Writer) error { return mutate(w, *only) }
	case "places":
		run = places
	case "style":
		update := flags.Bool("update", false, "write lower counts to "+ratchetFile)
		all := flags.Bool("list", false, "list every line that a rule matches")
		run = func(w io.Writer) error { return style(w, *update, *all) }
	default:
		fail(fmt.Errorf("there is no command %q: use figures, mutations, places or style", command))
	}
	_ = flags.Parse(args)
	if flags.NArg() > 0 {
		fail(fmt.Errorf("%s takes no argument, but %q was given", command, flags.Arg(0)))
	}
	if err := run(os.Stdout); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "measure:", err)
	os.Exit(1)
}

// git returns the output of a git command.
func git(args ...string) (string, error) {
	out, err := exec.Command("git", args...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", strings.Join(args, " "), err)
	}
	return string(out), nil
}
