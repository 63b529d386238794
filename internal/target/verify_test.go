package target_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
)

// TestVerifyEach verifies that the order of the endpoints does not decide the result.
func TestVerifyEach(t *testing.T) {
	t.Parallel()
	rejected := target.Failed(target.Rejected, "", "rejected")
	silent := target.Failed(target.Unknown, "", "silent")
	closed := target.Failed(target.Unreachable, "", "closed")
	admitted := target.Failed(target.Admitted, "", "admitted")
	unclear := target.Failed(target.Unclear, "", "unclear")
	for _, tt := range []struct {
		name    string
		answers []error
		want    error
		asked   int
	}{
		{"all accept", []error{nil, nil}, nil, 2},
		{"a rejection ends it", []error{nil, rejected, closed}, rejected, 2},
		{"a rejection after a failure", []error{silent, closed, rejected}, rejected, 3},
		{"the first failure", []error{nil, closed, silent}, closed, 3},
		{"one refuses the session", []error{nil, admitted, nil}, admitted, 3},
		{"that proves nothing at the others", []error{admitted, closed}, closed, 2},
		{"nor at those before", []error{unclear, admitted}, unclear, 2},
	} {
		asked := 0
		err := target.VerifyEach(t.Context(), tt.answers, func(_ context.Context, answer error) error {
			asked++
			return answer
		})
		if !errors.Is(err, tt.want) || asked != tt.asked {
			t.Errorf("%s: %v after %d logins, want %v after %d", tt.name, err, asked, tt.want, tt.asked)
		}
	}
	err := target.VerifyEach(t.Context(), nil, func(context.Context, error) error { return nil })
	if target.ClassOf(err) != target.Denied || err == nil {
		t.Errorf("without an endpoint: %v, want an error that proves nothing", err)
	}
}

// kindConfig is the configuration of a kind that exists for TestNewKind.
type kindConfig struct{ Host string }

func (c kindConfig) Addresses() []string { return []string{c.Host} }

func TestNewKind(t *testing.T) {
	t.Parallel()
	wrong := errors.New("host is required")
	parse := target.Parser(func(c *kindConfig) error {
		if c.Host == "" {
			return wrong
		}
		return nil
	})
	var opened kindConfig
	k := target.NewKind("toy", []target.Strategy{target.Single}, parse,
		func(c kindConfig, _ target.Settings) (target.Target, error) {
			opened = c
			return nil, nil
		})
	if k.NeedsAdmin || k.Name != "toy" {
		t.Errorf("kind %+v", k)
	}
	settings := target.Settings{Config: []byte(`{"Host":"db"}`)}
	if _, err := k.Open(settings); err != nil || opened.Host != "db" {
		t.Errorf("a good configuration opens %+v, %v", opened, err)
	}
	if _, err := k.WithAdmin().Open(settings); err == nil || !k.WithAdmin().NeedsAdmin {
		t.Error("a target without an administrator was opened")
	}
	opened = kindConfig{}
	_, err := k.Open(target.Settings{Config: []byte(`{}`)})
	if !errors.Is(err, wrong) || opened != (kindConfig{}) || !errors.Is(k.Check([]byte(`{}`)), wrong) {
		t.Errorf("a configuration with a mistake opens %+v, %v; Check says %v", opened, err, k.Check([]byte(`{}`)))
	}
	if got := k.AddressesOf([]byte(`{"Host":"db"}`)); !slices.Equal(got, []string{"db"}) {
		t.Errorf("addresses %q", got)
	}
	if got := k.AddressesOf([]byte(`{}`)); got != nil {
		t.Errorf("addresses %q of a configuration with a mistake", got)
	}
}

// TestPoolerDoesNotDecide verifies that a rejection by a pooler is shown, and decides nothing.
func TestPoolerDoesNotDecide(t *testing.T) {
	t.Parallel()
	rejected := target.Rejected.Errorf("wrong password")
	for role, want := range map[target.Role]target.Class{
		target.Writer:  target.Rejected,
		target.Replica: target.Rejected,
		target.Pooler:  target.Unclear,
	} {
		if got := target.ClassOf(target.Endpoint{Role: role}.Answer(rejected)); got != want {
			t.Errorf("a rejection by a %s is of class %v, want %v", role, got, want)
		}
	}
	if err := (target.Endpoint{Role: target.Pooler}).Answer(nil); err != nil {
		t.Errorf("a login at a pooler ends with %v", err)
	}
}
