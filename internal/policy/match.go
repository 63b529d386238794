package policy

import "unicode/utf8"

// match reports whether s fits pattern, where * stands for any characters, also none and also
// slashes, and ? for exactly one.
//
// After a mismatch only the last * needs another try: what an earlier one could take, the last can
// take too. So the work is at most len(pattern) times len(s), whatever the pattern.
func match(pattern, s string) bool {
	return wildcard(pattern, s, false)
}

// matchFold is match without regard to the case of ASCII letters. Action names have no others.
func matchFold(pattern, s string) bool {
	return wildcard(pattern, s, true)
}

func wildcard(pattern, s string, fold bool) bool {
	p, i := 0, 0
	star, taken := -1, 0 // the byte after the last *, and where in s its text ends
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			star, taken = p, i
		case p < len(pattern) && pattern[p] == '?':
			p++
			i += width(s[i:])
		case p < len(pattern) && same(pattern[p], s[i], fold):
			p++
			i++
		case star >= 0:
			taken += width(s[taken:])
			p, i = star, taken
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// width is the number of bytes of the first character: ? and * step over whole characters, so that
// ? never matches half of one.
func width(s string) int {
	if s[0] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRuneInString(s)
	return n
}

func same(a, b byte, fold bool) bool {
	return a == b || fold && lower(a) == lower(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
