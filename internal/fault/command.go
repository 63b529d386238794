package fault

import (
	"regexp"
	"strings"
)

// Commands returns a text with the commands of keyturn in it that are about things with these
// names. A name that begins with a hyphen is not taken for a flag: it follows the flags, after --.
func Commands(text string, names ...string) string {
	for _, name := range names {
		if strings.HasPrefix(name, "-") {
			command := regexp.MustCompile(`(keyturn [a-z-]+ [a-z-]+) ` + regexp.QuoteMeta(name) +
				`((?: --[a-z-]+(?:[ =](?:[a-z_.]+=)?[A-Z]+)?)*)([^A-Za-z0-9_/+=@-]|$)`)
			text = command.ReplaceAllString(text, "$1$2 -- "+strings.ReplaceAll(name, "$", "$$")+"$3")
		}
	}
	return text
}

// commands is [Commands] for the texts among the arguments of a message.
func commands(text string, args []any) string {
	for _, a := range args {
		if name, ok := a.(string); ok {
			text = Commands(text, name)
		}
	}
	return text
}
