package command

import (
	"context"
	"errors"
	"testing"
)

// TestOneAtATimeWithoutNamespaces verifies that commands of one user run one after the other where
// they get no namespaces, that the wait ends with the context, and that nobody waits otherwise.
func TestOneAtATimeWithoutNamespaces(t *testing.T) {
	t.Parallel()
	able := false
	i := newIsolation(func(context.Context) bool { return able })
	user := User{UID: 64123, GID: 64123}
	isolate, end, err := i.begin(t.Context(), user)
	if err != nil || isolate {
		t.Fatalf("isolated %t, %v", isolate, err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if _, _, err := i.begin(ended, user); !errors.Is(err, context.Canceled) {
		t.Errorf("beside another one: %v", err)
	}
	if _, _, err := i.begin(ended, User{Self: true}); err != nil {
		t.Errorf("a command of the server's own user: %v", err)
	}
	end()
	if _, _, err := i.begin(t.Context(), user); err != nil {
		t.Errorf("after the end of the other one: %v", err)
	}
	able = true
	for range 2 {
		if isolate, _, err := i.begin(ended, user); err != nil || !isolate {
			t.Errorf("with namespaces: isolated %t, %v", isolate, err)
		}
	}
}
