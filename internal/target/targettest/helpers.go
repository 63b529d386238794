package targettest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// limit bounds one call of a target in the tests of a kind.
const limit = 30 * time.Second

// Login logs in at a server without the code under test. It reports whether the server accepted the
// credential, and returns an error if the server did not answer.
type Login func(ctx context.Context, c target.Credential) (bool, error)

// Open opens a target whose configuration must be accepted, and closes it when the test ends.
func Open(t testing.TB, k target.Kind, config string, admin target.Credential) target.Target {
	t.Helper()
	if err := k.Check([]byte(config)); err != nil {
		t.Fatalf("the configuration is refused: %v", err)
	}
	tt, err := k.Open(target.Settings{Name: "test", Config: []byte(config), Admin: admin})
	Must(t, err)
	t.Cleanup(func() {
		if err := tt.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return tt
}

// Within returns the context of one call of a target.
func Within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// Must ends the test unless err is nil.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Expect asserts the class of an error and words of its [OperatorText].
func Expect(t testing.TB, err error, class target.Class, words ...string) {
	t.Helper()
	if err == nil || target.ClassOf(err) != class {
		t.Fatalf("%v of class %v, want class %v", err, target.ClassOf(err), class)
	}
	for _, w := range words {
		if !strings.Contains(OperatorText(err), w) {
			t.Errorf("the error does not say %q: %s", w, OperatorText(err))
		}
	}
}

// Result asserts the outcome of a table's row: no error if text is empty, otherwise what [Expect]
// asserts.
func Result(t testing.TB, err error, class target.Class, text string) {
	t.Helper()
	if text == "" {
		Must(t, err)
		return
	}
	Expect(t, err, class, text)
}

// Works asserts whether a server accepts a credential.
func (l Login) Works(t testing.TB, when string, c target.Credential, want bool) {
	t.Helper()
	if in, err := l(Within(t), c); err != nil || in != want {
		t.Fatalf("%s: login as %q: %v, %v; want %v", when, c.Account, in, err, want)
	}
}

// OperatorText returns what an operator reads of an error: its text, and the detail that callers do
// not get.
func OperatorText(err error) string {
	if detail := target.DetailOf(err); detail != "" {
		return err.Error() + " [" + detail + "]"
	}
	return fmt.Sprint(err)
}

// Generate returns a candidate, made in the same way as by the engine.
func Generate(
	ctx context.Context, tt target.Target, account string, old target.Credential,
) (target.Credential, error) {
	if g, ok := tt.(target.Generator); ok {
		return g.Generate(ctx, account, old, rand.Reader)
	}
	return target.PasswordRule{}.Generate(ctx, account, old, rand.Reader)
}

// Value is a shorthand for harnesses.
func Value(s string) sensitive.Value { return sensitive.New(s) }

// secrets are what no text of an error may contain.
type secrets struct {
	mu   sync.Mutex
	list []sensitive.Value // guarded by mu
}

// add remembers the secret of a credential and returns the credential. A secret that an error may
// contain for another reason, the name of the account or a few characters, is left out.
func (s *secrets) add(c target.Credential) target.Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Secret.Len() > 3 && c.Secret.Reveal() != c.Account {
		s.list = append(s.list, c.Secret)
	}
	return c
}

// absent fails the test if a secret is in what callers or operators read of an error.
func (s *secrets) absent(t testing.TB, err error) {
	t.Helper()
	s.absentIn(t, OperatorText(err))
}

// absentIn fails the test if a secret is in a text.
func (s *secrets) absentIn(t testing.TB, text string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.list, func(v sensitive.Value) bool { return strings.Contains(text, v.Reveal()) }) {
		t.Error("the text of an error or a finding has a secret")
	}
}
