package fault

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Names, values and messages from another system appear in sentences, statements and commands that
// an operator reads, and may run. A sentence is shown as one line of printable characters, in which
// the commands of keyturn stand for the operator's own. Text that would display differently, or
// that looks like a command, is escaped.

// command is how a command of the product begins, which nothing foreign may look like.
const command = "keyturn "

// Foreign returns a text from another system in which nothing looks like a command of keyturn, also
// after its line ends and tabs have become spaces.
func Foreign(text string) string {
	name := strings.TrimSpace(command)
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, name)
		out.WriteString(before)
		if !found {
			return out.String()
		}
		out.WriteString(name)
		text = strings.TrimLeftFunc(after, isNoPrint)
		if text != after {
			out.WriteString(`\x20`)
		}
	}
}

func isNoPrint(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }

// Quoted returns a name from another system in quotes, as Go writes it, for a sentence.
func Quoted(name string) string { return Foreign(strconv.Quote(name)) }

// IsShown reports whether a text is shown as it is, and would not be read as a command of keyturn.
func IsShown(text string) bool {
	return !strings.Contains(text, command) && !strings.Contains(text, "  ") &&
		!strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// Escaped escapes backslashes, what is not printable, each space after a space, and the space of a
// command of keyturn. short and long are formats of one rune, up to U+FFFF and above, which escape
// in the language of the result.
func Escaped(text, short, long string) string {
	return escaped(text, func(char string) string {
		r, _ := utf8.DecodeRuneInString(char)
		if r > 0xffff {
			return fmt.Sprintf(long, r)
		}
		return fmt.Sprintf(short, r)
	})
}

// escaped is [Escaped] with a function that escapes one character.
func escaped(text string, escape func(char string) string) string {
	var out strings.Builder
	for i, r := range text {
		_, size := utf8.DecodeRuneInString(text[i:])
		char := text[i : i+size]
		switch {
		case r == '\\':
			out.WriteString(`\\`)
		case unicode.IsPrint(r) && (r != ' ' ||
			!strings.HasSuffix(text[:i], " ") && !strings.HasSuffix(text[:i+1], command)):
			out.WriteString(char)
		default:
			out.WriteString(escape(char))
		}
	}
	return out.String()
}
