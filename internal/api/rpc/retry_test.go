package rpc_test

import (
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/protocol"
)

// state returns what all reading operations answer.
func (f *fixture) state(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, g := range allGoldens() {
		if protocol.Named(g.op).Mutates || g.op == "GetRandomPassword" {
			continue
		}
		b.WriteString(g.op + "\n")
		writeAnswer(&b, f.answer(f.signed(t, g.call, admin, goldenTime, false)))
	}
	return b.String()
}

// firstChange returns the first lines in which two states differ.
func firstChange(before, after string) string {
	now := strings.Split(after, "\n")
	for i, line := range strings.Split(before, "\n") {
		if i >= len(now) || now[i] != line {
			return line + "\nto " + now[min(i, len(now)-1)]
		}
	}
	return "the number of lines"
}

var changesMember = regexp.MustCompile(`"Changes":\{"Change":\[[^]]*\]\},`)

// TestRetriesChangeNothing sends every change that is declared Retryable twice, as a client does
// that has not seen the first answer. The second must have the same answer and change nothing.
func TestRetriesChangeNothing(t *testing.T) {
	t.Parallel()
	for _, g := range goldens {
		if o := protocol.Named(g.op); !o.Mutates || !o.Retryable {
			continue
		}
		t.Run(g.op, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.prepare(t, g.before)
			if setUp := setUps[g.op]; setUp != nil {
				setUp(t, f)
			}
			if at := slices.Index(g.params, "DryRun"); at >= 0 {
				g.params = slices.Delete(slices.Clone(g.params), at, at+2)
			}
			f.state(t) // its reads are noted as of a consumer
			first := f.answer(f.signed(t, g.call, admin, goldenTime, false))
			if first.Code != http.StatusOK {
				t.Fatalf("the first: %d %s", first.Code, first.Body)
			}
			before := f.state(t)
			second := f.answer(f.signed(t, g.call, admin, goldenTime, false))
			// A login that failed is not repeated at once, and changes nothing either.
			throttled := g.op == "TestTarget" && second.Code == http.StatusTooManyRequests
			// The first answer lists changes, and its repetition has changed nothing.
			want := changesMember.ReplaceAllString(first.Body.String(), "")
			if !throttled && (second.Code != first.Code || second.Body.String() != want) {
				t.Errorf("the second: %d %s; the first: %d %s", second.Code, second.Body, first.Code, first.Body)
			}
			if after := f.state(t); after != before {
				t.Errorf("the second changes %s", firstChange(before, after))
			}
		})
	}
}
