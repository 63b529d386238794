package targettest

import (
	"context"
	"errors"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// evicts verifies that a [target.Evictor] finds a password that the owner of an account has set,
// and removes it only when that is wanted.
func (h Harness) evicts(t *testing.T, s target.Strategy) {
	tt := h.Open(t, h.Addr)
	e, ok := tt.(target.Evictor)
	if !ok || s != target.Double {
		t.Skip("only an Evictor with strategy double finds a password on an account that is out of use")
	}
	if h.ByHand == nil {
		t.Fatal("the kind implements target.Evictor: set ByHand")
	}
	c := h.change(t, tt, s)
	h.do(t, "Apply", func(ctx context.Context) error { return tt.Apply(ctx, c) })
	retire := func(when string, remove bool, want target.ForeignKind) {
		t.Helper()
		var found target.Foreign
		h.do(t, when, func(ctx context.Context) error {
			return e.RetireOrEvict(ctx, c, func(_ context.Context, f target.Foreign) (bool, error) {
				found = f
				return remove && f.Kind == target.ForeignFound, nil
			})
		})
		if found.Kind != want || (found.Text == "") != (want == target.NoForeign) {
			t.Errorf("%s: found %+v, want kind %d", when, found, want)
		}
	}
	there, none := target.ForeignFound, target.NoForeign
	if h.ForeignUnread != "" {
		there, none = target.ForeignUnknown, target.ForeignUnknown
	}
	retire("the old password alone", false, target.NoForeign)
	h.works(t, tt, "after that", c.Old, false)
	retire("an account that is retired", true, none)
	mine := h.wrong(t, c.Old)
	h.ByHand(t, mine)
	retire("a password that is to stay", false, there)
	h.works(t, tt, "after that, the password of the owner", mine, true)
	if h.ForeignUnread != "" {
		return
	}
	refused := errors.New("not stored")
	err := e.RetireOrEvict(Within(t), c, func(context.Context, target.Foreign) (bool, error) { return true, refused })
	if err == nil {
		t.Error("a decision that could not be stored is no error")
	}
	h.works(t, tt, "after that, the password of the owner", mine, true)
	retire("a password that is to be removed", true, there)
	h.works(t, tt, "after that, the password of the owner", mine, false)
	h.works(t, tt, "after that, the new credential", c.New, true)
	retire("the same again", true, target.NoForeign)
	h.ByHand(t, c.Old)
	retire("the old password, which was set again", false, target.NoForeign)
	h.works(t, tt, "after that", c.Old, false)
	next := h.applyNext(t, tt, c)
	h.works(t, tt, "the next rotation", next.New, true)
}

// evictsBeside verifies that a [target.Evictor] with strategy Overlap finds a password that the
// owner of an account has set in place of the old one, which Apply leaves beside the new one, and
// removes it only when that is wanted.
func (h Harness) evictsBeside(t *testing.T, s target.Strategy) {
	tt := h.Open(t, h.Addr)
	e, ok := tt.(target.Evictor)
	if !ok || s != target.Overlap {
		t.Skip("only an Evictor with strategy overlap finds a password in place of the old one")
	}
	for remove, left := range map[bool]bool{false: true, true: false} {
		c := h.change(t, tt, s)
		mine := h.wrong(t, c.Old)
		h.ByHand(t, mine)
		h.do(t, "Apply", func(ctx context.Context) error { return tt.Apply(ctx, c) })
		h.works(t, tt, "before", mine, true)
		for n := range 2 {
			var found target.Foreign
			h.do(t, "RetireOrEvict", func(ctx context.Context) error {
				return e.RetireOrEvict(ctx, c, func(_ context.Context, f target.Foreign) (bool, error) {
					found = f
					return remove, nil
				})
			})
			if want := n == 0 || !remove; want != (found.Kind == target.ForeignFound) || want != (found.Text != "") {
				t.Errorf("removed %v, call %d: found %+v", remove, n+1, found)
			}
			h.works(t, tt, "the password of the owner", mine, left)
			h.works(t, tt, "the new credential", c.New, true)
		}
	}
}
