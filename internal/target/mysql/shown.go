package mysql

import (
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
)

// Names from the server appear in sentences and statements that an operator reads, and may run in a
// session with any SQL mode.

// shownName returns a name for an operator: in the quotes of a string; where it has a backslash, in
// the quotes of an identifier, which mean the same in every SQL mode; as Go quotes it where it is
// not shown as it is, because no statement can have such a name.
func shownName(s string) string {
	switch {
	case !fault.IsShown(s):
		return fault.Quoted(s)
	case strings.Contains(s, `\`):
		return "`" + strings.ReplaceAll(s, "`", "``") + "`"
	}
	return quote(s)
}

// shownNames is shownName for several.
func shownNames(names []string) (list []string) {
	for _, name := range names {
		list = append(list, shownName(name))
	}
	return list
}

// shown returns an account for an operator.
func shown(name, host string) string { return shownName(name) + "@" + shownName(host) }

// statement returns a statement for an operator about an account that shown returns, whose parts
// have the given names: a look-up of the account where no statement can name it.
func statement(text string, names ...string) string {
	for _, name := range names {
		if !fault.IsShown(name) {
			return "The name has characters that no statement shows: SELECT HEX(User), HEX(Host) FROM mysql.user finds " +
				"the account, for which a client must write the statement with the real name."
		}
	}
	return text
}
