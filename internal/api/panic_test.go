package api

import (
	"context"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
)

// TestPanicEndsOneCall verifies that a panic becomes an error of kind Internal with its
// place for the log, and reveals nothing to the caller.
func TestPanicEndsOneCall(t *testing.T) {
	t.Parallel()
	c := &Call{op: &endpoint{
		Op:  &operation.Op{Name: "Op"},
		run: func(context.Context, *Call, any) (any, error) { panic("broken invariant") },
	}}
	out, err := run(t.Context(), c, nil)
	if out != nil || fault.KindOf(err) != fault.Internal || !strings.Contains(err.Error(), "panic_test.go") {
		t.Errorf("run = %v, %v", out, err)
	}
	if code := protocol.CodeFor(err); code.Code != "InternalFailure" || strings.Contains(code.Message, "broken") {
		t.Errorf("the caller gets %+v", code)
	}
}
