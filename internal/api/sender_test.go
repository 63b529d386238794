package api

import (
	"context"
	"net"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// TestUnusedTarget verifies that a target that is opened to be asked nothing, which is opened with
// an administrator that may not log in now, can neither connect nor send in another way.
func TestUnusedTarget(t *testing.T) {
	t.Parallel()
	for _, unused := range []bool{false, true} {
		dialed := false
		c := &Call{Env: &Env{Dial: func(context.Context, string, string) (net.Conn, error) {
			dialed = true
			here, there := net.Pipe()
			_ = there.Close()
			return here, nil
		}}}
		by := (&sender{call: c, unused: unused}).settings(target.Credential{})
		if _, err := by.Dial(t.Context(), "tcp", "db.test:5432"); (err != nil) != unused || dialed == unused {
			t.Errorf("unused %t: %v, connected %t", unused, err, dialed)
		}
		if err := by.Sending(t.Context(), "/usr/bin/adapter"); (err != nil) != unused {
			t.Errorf("unused %t: %v before it sends to a program", unused, err)
		}
	}
}
