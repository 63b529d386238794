package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable is a writer to a terminal. Most of what commands print comes from servers, which have
// it from targets and callers: what would move the cursor, hide a text or turn its direction is
// written as in JSON, so that JSON stays what it is.
type printable struct {
	w    io.Writer
	rest []byte // the beginning of a character whose end is not written yet
}

func (p *printable) Write(data []byte) (int, error) {
	text := append(p.rest, data...)
	p.rest = nil
	if n := incomplete(text); n > 0 {
		p.rest = append(p.rest, text[len(text)-n:]...)
		text = text[:len(text)-n]
	}
	if _, err := io.WriteString(p.w, escaped(string(text), "\n\t")); err != nil {
		return 0, err
	}
	return len(data), nil
}

// incomplete returns how many bytes at the end of a text are the beginning of a character.
func incomplete(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if c := text[len(text)-n]; utf8.RuneStart(c) {
			if utf8.FullRune(text[len(text)-n:]) {
				return 0
			}
			return n
		}
	}
	return 0
}

// escaped returns a text in which characters that are not printed are written as in JSON, but for
// those in keep.
func escaped(text, keep string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case strings.ContainsRune(keep, r), r == utf8.RuneError,
			unicode.IsPrint(r), unicode.Is(unicode.Zs, r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
