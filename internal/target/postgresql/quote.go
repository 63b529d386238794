package postgresql

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// Names and values from the server appear in statements and sentences that an operator reads, and
// may run. A sentence is shown as one line of printable characters, in which the commands of
// keyturn stand for the operator's own. So what would be shown in another way than it is, or as a
// command, is escaped: as SQL and Go do it, so that a statement still means the same.

// identifier matches what quoteIdentifier returns, inside a regular expression.
const identifier = `(?:U&)?"(?:[^"]|"")*"`

func plainIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteIdentifier relies on standard_conforming_strings = on, which begin sets, for names that need
// escapes.
func quoteIdentifier(s string) string {
	if !needsEscapes(s) {
		return plainIdentifier(s)
	}
	return "U&" + plainIdentifier(escaped(s, `\%04X`, `\+%06X`))
}

// quoteLiteral relies on standard_conforming_strings = on, which begin sets.
func quoteLiteral(s string) string {
	literal := func(s string) string { return `'` + strings.ReplaceAll(s, `'`, `''`) + `'` }
	if !needsEscapes(s) {
		return literal(s)
	}
	return "E" + literal(escaped(s, `\u%04x`, `\U%08x`))
}

// command is how a command of the product begins, which no name or value may look like.
const command = "keyturn "

// needsEscapes reports whether a text is not shown as it is, or would be read as a command.
func needsEscapes(s string) bool {
	return strings.Contains(s, command) || strings.Contains(s, "  ") ||
		strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// escaped escapes backslashes, what is not printable, each space after a space, and the space of a
// command.
func escaped(s, short, long string) string {
	var out strings.Builder
	for i, r := range s {
		switch {
		case r == '\\':
			out.WriteString(`\\`)
		case unicode.IsPrint(r) && (r != ' ' || !strings.HasSuffix(s[:i], " ") && !strings.HasSuffix(s[:i+1], command)):
			out.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&out, long, r)
		default:
			fmt.Fprintf(&out, short, r)
		}
	}
	return out.String()
}

// requoted escapes the quoted names in SQL that the server has written.
func requoted(sql string) string {
	return serverQuoted.ReplaceAllStringFunc(sql, func(s string) string {
		return quoteIdentifier(strings.ReplaceAll(s[1:len(s)-1], `""`, `"`))
	})
}

var serverQuoted = regexp.MustCompile(`"(?:[^"]|"")*"`)

// quoted returns a name from the server in quotes, for a sentence.
func quoted(name string) string { return foreign(strconv.Quote(name)) }

// foreign returns a text from the server in which nothing looks like a command.
func foreign(text string) string { return strings.ReplaceAll(text, command, `keyturn\x20`) }
