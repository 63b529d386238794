package store_test

import (
	"bytes"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
)

func putUser(t *testing.T, db *store.DB, name, id string, at time.Time) {
	t.Helper()
	err := store.Do(t.Context(), db, func(tx *store.Tx) error {
		u, err := users.NewUser(account, id, name, users.Profile{}, at)
		if err != nil {
			return err
		}
		return tx.PutUser(u)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// allowed asks whether a user may read a secret by the secret's own policy.
func allowed(t *testing.T, db *store.DB, name, user, id string) bool {
	t.Helper()
	tx := store.Snapshot(t.Context(), db)
	s, ok, err := tx.Secret(account, name, t0)
	if err != nil || !ok {
		t.Fatalf("secret %s: %v, %v", name, ok, err)
	}
	d, err := tx.SecretPolicy(s)
	if err != nil {
		t.Fatal(err)
	}
	return policy.Evaluate(policy.Request{
		Principal: policy.Principal{Kind: policy.KindRAMUser, Account: account, Name: user, ID: id},
		Action:    "kms:GetSecretValue", Resource: s.ARN("local"), Grantable: true,
	}, nil, &d).Allowed
}

// TestFormerPoliciesAreBound verifies that a policy which a release without IDs has stored is bound
// to those users who had the names when its secret was last changed, before and after the upgrade,
// and that a later user of a name gets nothing.
func TestFormerPoliciesAreBound(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	document := `{"Version":"1","Statement":[{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account +
		`:user/old","acs:ram::` + account +
		`:user/new","acs:ram::` + account + `:user/gone","acs:ram::` + account +
		`:user/middle"]},"Action":["kms:GetSecretValue"],"Resource":["*"]}]}`
	putUser(t, db, "old", "1", t0.Add(-time.Hour))
	putUser(t, db, "middle", "4", t0.Add(time.Minute))
	create(t, db, "a")
	err := put(t.Context(), db, "a", func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
		s.Policy, s.UpdatedAt = document, t0.Add(2*time.Minute)
		return s, nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	putUser(t, db, "new", "2", t0.Add(time.Hour))
	check := func(when string) {
		t.Helper()
		for _, tt := range []struct {
			user, id string
			want     bool
		}{{"old", "1", true}, {"renamed", "1", when == "after"}, {"middle", "4", true}, {"new", "2", false},
			{"gone", "3", false}, {"old", "9", false}} {
			if when == "before" && tt.user == "renamed" {
				continue
			}
			if got := allowed(t, db, "a", tt.user, tt.id); got != tt.want {
				t.Errorf("%s: user %s with ID %s may read: %v; want %v", when, tt.user, tt.id, got, tt.want)
			}
		}
	}
	check("before")
	var log bytes.Buffer
	if err := store.BindSecretPolicies(t.Context(), db, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
		t.Fatal(err)
	}
	check("after")
	s, _, err := store.Snapshot(t.Context(), db).Secret(account, "a", t0)
	want := map[string]string{"acs:ram::" + account + ":user/old": "1", "acs:ram::" + account + ":user/middle": "4"}
	if err != nil || s.PolicyBinding == nil || !maps.Equal(s.PolicyBinding.IDs, want) ||
		!s.UpdatedAt.Equal(t0.Add(2*time.Minute)) {
		t.Errorf("bound to %+v at %v, %v", s.PolicyBinding, s.UpdatedAt, err)
	}
	for _, part := range []string{"user/new", "user/gone", "created after the secret", "user/middle"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not name %s:\n%s", part, log.String())
		}
	}
	log.Reset()
	if err := store.BindSecretPolicies(t.Context(), db, slog.New(slog.NewTextHandler(&log, nil))); err != nil ||
		log.Len() > 0 {
		t.Errorf("a second time: %v, %s", err, log.String())
	}
}

// TestIndexOfDenies verifies that the index follows the policies of secrets.
func TestIndexOfDenies(t *testing.T) {
	t.Parallel()
	db := temporary(t)
	create(t, db, "a")
	create(t, db, "b")
	set := func(name, effects string) {
		t.Helper()
		rules := []string{`{"Effect":"Allow","Principal":{"RAM":["acs:ram::` + account +
			`:*"]},"Action":["kms:*"],"Resource":["*"]}`}
		if effects == "Deny" {
			rules = append(rules, strings.Replace(rules[0], "Allow", "Deny", 1))
		}
		err := put(t.Context(), db, name, func(s secret.Secret, _ bool) (secret.Secret, map[string][]byte, error) {
			s, err := s.SetPolicy(`{"Version":"1","Statement":[`+strings.Join(rules, ",")+`]}`, nil, t0)
			return s, nil, err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	check := func(want string) {
		t.Helper()
		names, err := store.Snapshot(t.Context(), db).Denying(account, "")
		if got := strings.Join(names, " "); err != nil || got != want {
			t.Errorf("Denying = %q, %v; want %q", got, err, want)
		}
	}
	set("a", "Deny")
	set("b", "Allow")
	check("a")
	set("b", "Deny")
	check("a b")
	set("a", "Allow")
	check("b")
	err := store.Do(t.Context(), db, func(tx *store.Tx) error {
		if _, _, err := tx.Secret(account, "b", t0); err != nil {
			return err
		}
		return tx.DeleteSecret(account, "b")
	})
	if err != nil {
		t.Fatal(err)
	}
	check("")
}
