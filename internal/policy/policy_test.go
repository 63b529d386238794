package policy

import (
	"fmt"
	"testing"
)

// evaluate parses the documents and tells the decision in words: "identity 0.1" is statement 1 of
// identity document 0. It also holds every decision to the rules that all share.
func evaluate(t *testing.T, r Request, identity []string, secret string) string {
	t.Helper()
	var documents []Document
	for _, text := range identity {
		d, err := ParseIdentity(text)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, d)
	}
	var sec *Document
	if secret != "" {
		d, err := parseSecret(secret, owner(secret))
		if err != nil {
			t.Fatal(err)
		}
		sec = &d
	}
	return describe(t, Evaluate(r, documents, sec))
}

// owner is the account in whose name a policy of these tests was written.
func owner(secret string) string {
	if secret == DefaultSecretDocument(foreign) {
		return foreign
	}
	return home
}

func describe(t *testing.T, d Decision) string {
	t.Helper()
	if d.Allowed && d.Explicit || (d.Policy == "") != (d.Statement == -1) ||
		(d.Policy == PolicyIdentity) != (d.Document >= 0) {
		t.Errorf("contradictory decision %+v", d)
	}
	prefix := ""
	if d.Explicit {
		prefix = "deny "
	}
	switch {
	case d.Policy == PolicyIdentity:
		return fmt.Sprintf("%sidentity %d.%d", prefix, d.Document, d.Statement)
	case d.Policy == PolicySecret:
		return fmt.Sprintf("%ssecret %d %s", prefix, d.Statement, d.Sid)
	case d.Allowed:
		return "root"
	}
	return "implicit"
}

func TestPrincipalARN(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		p    Principal
		want string
	}{
		{root, "acs:ram::1234567890123456:root"},
		{alice, "acs:ram::1234567890123456:user/alice"},
		{worker, "acs:ram::1234567890123456:assumed-role/worker/s1"},
		{engine, "acs:ram::1234567890123456:system/rotator"},
		{Principal{}, ""},
	} {
		if got := tt.p.ARN(); got != tt.want {
			t.Errorf("ARN of %v = %q; want %q", tt.p, got, tt.want)
		}
	}
}

func TestParseARN(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		in   string
		want ARNParts
		ok   bool
	}{
		{"acs:kms:cn-hangzhou:1234567890123456:secret/app:db/x", ARNParts{"kms", "cn-hangzhou", home, "secret/app:db/x"},
			true},
		{"acs:ram::1234567890123456:root", ARNParts{"ram", "", home, "root"}, true},
		{"acs:kms:r:a:", ARNParts{}, false},
		{"acs::r:a:x", ARNParts{}, false},
		{"acs:kms:r:a", ARNParts{}, false},
		{"arn:kms:r:a:x", ARNParts{}, false},
		{"ACS:kms:r:a:x", ARNParts{}, false},
		{"*", ARNParts{}, false},
		{"", ARNParts{}, false},
	} {
		got, ok := ParseARN(tt.in)
		if got != tt.want || ok != tt.ok {
			t.Errorf("ParseARN(%q) = %+v, %v; want %+v, %v", tt.in, got, ok, tt.want, tt.ok)
		}
		if ok && ARN(got.Service, got.Region, got.Account, got.Relative) != tt.in {
			t.Errorf("ARN does not undo ParseARN for %q", tt.in)
		}
	}
}

// The sample of GetSecretPolicy in the API reference.
func TestDefaultSecretDocument(t *testing.T) {
	t.Parallel()
	const want = `{"Statement":[{"Action":["kms:*"],"Effect":"Allow",` +
		`"Principal":{"RAM":["acs:ram::1234567890123456:*"]},"Resource":["*"],"Sid":"kms default secret policy"}],` +
		`"Version":"1"}`
	got := DefaultSecretDocument(home)
	if got != want {
		t.Errorf("DefaultSecretDocument = %s", got)
	}
	if _, err := parseSecret(got, home); err != nil {
		t.Error(err)
	}
}
