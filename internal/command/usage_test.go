package command

import (
	"testing"

	"github.com/alecthomas/kong"
)

// TestUsage verifies what a user reads of a mistake in the arguments: what is wrong, and where help
// is. A new release of the parser must not bring back its own words.
func TestUsage(t *testing.T) {
	t.Parallel()
	var commands struct {
		Group struct {
			Get struct {
				Name  string `arg:""`
				Stage string
				Kind  string `enum:"a,b" default:"a"`
			} `cmd:""`
			List struct {
				All string `required:"" placeholder:"WHAT"`
			} `cmd:""`
		} `cmd:""`
	}
	parser := kong.Must(&commands, kong.Name("keyturn"))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"grop"}, `there is no command "grop", did you mean "group"?; see keyturn --help`},
		{[]string{"group"}, `a command is missing; see keyturn group --help`},
		{[]string{"group", "x"}, `there is no command "x"; there are get, list; see keyturn group --help`},
		{[]string{"group", "get"}, `<name> is missing; see keyturn group get --help`},
		{[]string{"group", "get", "a", "b"}, `unexpected argument b; see keyturn group get --help`},
		{[]string{"group", "get", "a", "--stage"}, `--stage needs a value; see keyturn group get --help`},
		{[]string{"group", "get", "a", "--bogus"}, `unknown flag --bogus; see keyturn group get --help`},
		{[]string{"group", "get", "a", "--kind", "c"},
			`--kind must be one of "a","b" but got "c"; see keyturn group get --help`},
		{[]string{"group", "list"}, `missing flags: --all=WHAT; see keyturn group list --help`},
	} {
		_, err := parser.Parse(c.args)
		if err == nil {
			t.Errorf("%q: no error", c.args)
			continue
		}
		if got := Usage("keyturn", err); got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}
