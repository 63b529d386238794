package api

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/wire"
)

// FuzzSecretName takes what callers give for SecretName. An ARN that is accepted is the ARN of the
// name that comes out, in this region and account, so the resource that policies judge is the
// secret that is read.
func FuzzSecretName(f *testing.F) {
	for _, s := range []string{
		"app/db", "acs:kms:r1:1234567890123456:secret/app/db", "acs:kms:r1:1234567890123456:secret/",
		"acs:kms:r2:1234567890123456:secret/app",
		"acs:kms:r1:6543210987654321:secret/app", "acs:kms:r1:1234567890123456:key/app",
		"acs:kms:r1:1234567890123456:secret/a b", "acs:kms:", "acs:kms::::",
	} {
		f.Add(s)
	}
	c := &Call{
		Env:     &Env{Region: "r1"},
		Request: protocol.Request{Principal: policy.Principal{Kind: policy.KindAccount, Account: "1234567890123456"}},
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := c.secretName(s)
		switch {
		case err != nil:
			if k := fault.KindOf(err); !strings.HasPrefix(s, arnPrefix) || k != fault.NotFound && k != fault.Invalid {
				t.Fatalf("secretName(%q): %v", s, err)
			}
		case !strings.HasPrefix(s, arnPrefix):
			if name != s {
				t.Fatalf("the name %q became %q", s, name)
			}
		case secret.ARN("r1", "1234567890123456", name) != s || !wire.IsName(name) || len(name) > 192:
			t.Fatalf("the ARN %q is taken for the secret %q", s, name)
		}
	})
}

// FuzzMarker reads markers of lists; one that is accepted is the one that a page would have given.
func FuzzMarker(f *testing.F) {
	for _, s := range []string{
		"", marker("robot"), marker("System:AdministratorAccess"), "x", "YWZ0ZXI6cm9ib3Q=", "YWZ0ZXI6\ncm9ib3Q",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		after, err := parseMarker("Marker", s)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatalf("parseMarker(%q): %v", s, err)
			}
			return
		}
		if again, err := parseMarker("Marker", marker(after)); err != nil || again != after {
			t.Fatalf("the marker %q continues after %q; given again it continues after %q, %v", s, after, again, err)
		}
	})
}
