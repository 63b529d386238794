package policy

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// naive is the definition of a wildcard, in exponential time.
func naive(pattern, s []rune) bool {
	switch {
	case len(pattern) == 0:
		return len(s) == 0
	case pattern[0] == '*':
		return naive(pattern[1:], s) || len(s) > 0 && naive(pattern, s[1:])
	case len(s) == 0:
		return false
	}
	return (pattern[0] == '?' || pattern[0] == s[0]) && naive(pattern[1:], s[1:])
}

func TestMatchProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		// Few letters, so that patterns meet; é and è share their first byte.
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("aB/éè*?")), 0, 8, -1).Draw(t, "pattern")
		s := rapid.StringOfN(rapid.SampledFrom([]rune("aB/éè*")), 0, 10, -1).Draw(t, "s")
		want := naive([]rune(pattern), []rune(s))
		if got := match(pattern, s); got != want {
			t.Fatalf("match(%q, %q) = %v", pattern, s, got)
		}
		want = naive([]rune(strings.ToLower(pattern)), []rune(strings.ToLower(s)))
		if got := matchFold(strings.ToUpper(pattern), strings.ToUpper(s)); got != want {
			t.Fatalf("matchFold(%q, %q) = %v", pattern, s, got)
		}
	})
}

// This pattern takes a backtracking matcher longer than the universe has left.
func TestMatchIsFast(t *testing.T) {
	t.Parallel()
	if match(strings.Repeat("a*", 3000)+"b", strings.Repeat("a", 4000)) {
		t.Error("matched without a b")
	}
}

func TestMatchTakesWholeCharacters(t *testing.T) {
	t.Parallel()
	if match("??", "é") || !match("?", "é") || !match("*é", "èé") {
		t.Error("? must match one character, however many bytes it has")
	}
	if bad := "\xc3\xff"; utf8.ValidString(bad) || !match("*", bad) || match("é", bad) {
		t.Error("ill-formed text must match * and nothing else")
	}
}
