package policy

import (
	"strings"
	"testing"
	"time"
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

// TestMatchIsFast compares the time for a text with the time for one twice as long. The product's
// matcher needs at most four times as long; one that tries again for each of the six stars, such as
// naive, needs a hundred times as long.
func TestMatchIsFast(t *testing.T) {
	t.Parallel()
	pattern := strings.Repeat("a*", 6) + "b"
	fastest := func(n int) time.Duration {
		least, s := time.Hour, strings.Repeat("a", n)
		for range 20 { // the shortest of many: other programs only make one longer
			began := time.Now()
			for range 10 {
				if match(pattern, s) {
					t.Fatal("matched without a b")
				}
			}
			least = min(least, time.Since(began))
		}
		return least
	}
	if once, twice := fastest(22), fastest(44); twice > 20*once {
		t.Errorf("a text takes %v, one twice as long %v", once, twice)
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
