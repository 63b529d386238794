package target

import (
	"slices"
	"strings"
)

// AllowsAccount reports whether an account policy lets rotations change an account. In a pattern, *
// stands for any characters and ? for one; a policy without patterns allows every account. Patterns
// are case-sensitive.
func AllowsAccount(patterns []string, account string) bool {
	if len(patterns) == 0 {
		return true
	}
	return slices.ContainsFunc(patterns, func(p string) bool { return matchAccount(p, account) })
}

// NamesAccount reports whether an account policy names an account exactly, which the rotation of a
// privileged account requires. A pattern with * or ? names no account.
func NamesAccount(patterns []string, account string) bool {
	return !strings.ContainsAny(account, "*?") && slices.Contains(patterns, account)
}

func matchAccount(pattern, account string) bool {
	p, a := []rune(pattern), []rune(account)
	i, j, star, mark := 0, 0, -1, 0
	for j < len(a) {
		switch {
		case i < len(p) && p[i] == '*': // before the plain comparison: the account may hold a * itself
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == a[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
