package cli

import (
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// profileless are the commands that reach no server with an access key of a profile (agent has
// one of its own), or take the profile in another way: kms reads its arguments itself, and
// profile is about the profiles. The script user.txtar verifies that these two follow the
// environment.
var profileless = []string{"serve", "demo", "kms", "agent", "version", "completion", "__complete", "profile"}

// TestEveryCommandHasTheFlagsOfItsGroup verifies that each command that reaches a server takes the
// profile from its flag or from the environment, and has the flags that were given to its group.
func TestEveryCommandHasTheFlagsOfItsGroup(t *testing.T) {
	t.Parallel()
	var c commands
	parser, err := newParser(&c, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	given := globals{Profile: "given", Output: "json"}
	groups := reflect.ValueOf(&c).Elem()
	for i := range groups.NumField() {
		if g, ok := groups.Field(i).Addr().Interface().(interface{ shared() *globals }); ok {
			*g.shared() = given
		}
	}
	shareFlags(&c)
	leaves := 0
	for _, leaf := range parser.Model.Leaves(false) {
		path := strings.TrimPrefix(leaf.FullPath(), "keyturn ")
		known := false
		for _, p := range profileless {
			known = known || path == p || strings.HasPrefix(path, p+" ")
		}
		leaves++
		command, ok := leaf.Target.Addr().Interface().(interface{ shared() *globals })
		switch {
		case ok && *command.shared() != given:
			t.Errorf("keyturn %s has not the flags of its group: %+v", path, *command.shared())
		case !ok && !known && !hasProfile(leaf):
			t.Errorf("keyturn %s reaches a server and has no profile, or is to be named in profileless", path)
		}
	}
	if leaves < 50 {
		t.Errorf("%d commands were looked at", leaves)
	}
}

// hasProfile reports whether a command has a flag for the profile of its own, which the environment
// sets too.
func hasProfile(leaf *kong.Node) bool {
	for _, flags := range leaf.AllFlags(false) {
		for _, f := range flags {
			if f.Name == "profile" {
				return len(f.Envs) == 1 && f.Envs[0] == profileVariable
			}
		}
	}
	return false
}
