package postgresql

import (
	"regexp"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// Names and values from the server that are not shown as they are, see [fault.IsShown], are escaped
// as SQL does it, so that a statement still means the same.

// identifier matches what quoteIdentifier returns, inside a regular expression.
const identifier = `(?:U&)?"(?:[^"]|"")*"`

func plainIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteIdentifier relies on standard_conforming_strings = on, which begin sets, for names that need
// escapes.
func quoteIdentifier(s string) string {
	if fault.IsShown(s) {
		return plainIdentifier(s)
	}
	return "U&" + plainIdentifier(fault.Escaped(s, `\%04X`, `\+%06X`))
}

// quoteLiteral returns a literal that means the same with any standard_conforming_strings: an
// operator runs the statements of findings in a session of their own.
func quoteLiteral(s string) string {
	literal := func(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }
	if fault.IsShown(s) && !strings.Contains(s, `\`) {
		return literal(s)
	}
	return "E" + literal(fault.Escaped(s, `\u%04x`, `\U%08x`))
}

// requoted escapes the quoted names in SQL that the server has written.
func requoted(sql string) string {
	return serverQuoted.ReplaceAllStringFunc(sql, func(s string) string {
		return quoteIdentifier(strings.ReplaceAll(s[1:len(s)-1], `""`, `"`))
	})
}

var serverQuoted = regexp.MustCompile(`"(?:[^"]|"")*"`)

// conforming adds to an advice the setting that its statements need: the session of an operator may
// have another one than begin sets.
func conforming(fix string) string {
	const needed = ` Names in U&"…" need SET standard_conforming_strings = on first.`
	if strings.Contains(fix, `U&"`) && target.FixFits(fix+needed) {
		return fix + needed
	}
	return fix
}
