package consumertest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/kms"
)

// TestRotation verifies that the labels move as in a rotation at a server: candidate, current,
// previous.
func TestRotation(t *testing.T) {
	t.Parallel()
	e, c := consumertest.New(t, "app/db", "v1", "one")
	e.SetStage("app/db", kms.StagePending, "v2", "two")
	read := func(stage string) string {
		out, err := e.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "app/db", VersionStage: stage})
		if err != nil {
			return kms.CodeOf(err)
		}
		return out.VersionID + " " + out.SecretData.Reveal()
	}
	if current, candidate := read(""), read(kms.StagePending); current != "v1 one" || candidate != "v2 two" {
		t.Errorf("before the promotion: current %q, candidate %q", current, candidate)
	}
	e.Put("app/db", "v2", "two")
	if current, previous := read(kms.StageCurrent), read(kms.StagePrevious); current != "v2 two" || previous != "v1 one" {
		t.Errorf("after the promotion: current %q, previous %q", current, previous)
	}
	if got := read(kms.StagePending); got != kms.CodeResourceNotFound {
		t.Errorf("after the promotion the candidate is %q", got)
	}
	if s, err := c.Get(t.Context(), "app/db"); err != nil || s.VersionID != "v1" {
		t.Errorf("the consumer has version %v, %v before it reads; want v1", s, err)
	}
	release := c.Hold("app/db", "v1")
	if err := c.Refresh(t.Context(), "app/db"); err != nil {
		t.Fatal(err)
	}
	if held := consumertest.Held(t, c, "app/db"); held != "v1" {
		t.Errorf("%q is held, want v1", held)
	}
	release()
	if held, reads := consumertest.Held(t, c, "app/db"), e.Reads("app/db"); held != "" || reads != 7 {
		t.Errorf("%q is held after %d reads, want none after 7", held, reads)
	}
}

// TestFail verifies that a failure reaches the consumer as the same error of a server would.
func TestFail(t *testing.T) {
	t.Parallel()
	e := &consumertest.Endpoint{}
	e.Put("a", "v1", "one")
	e.Put("b", "v1", "one")
	c, err := consumer.New(t.Context(), consumer.Config{Client: e})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	e.Fail("", errors.New("connection refused"))
	if _, err := c.Get(t.Context(), "a"); !errors.Is(err, consumer.ErrUnavailable) {
		t.Errorf("while all reads fail: %v", err)
	}
	e.Fail("", nil)
	e.Fail("b", kms.ErrNoPermission)
	if _, err := c.Get(t.Context(), "b"); !errors.Is(err, consumer.ErrDenied) {
		t.Errorf("while reads of b are denied: %v", err)
	}
	if _, err := c.Get(t.Context(), "c"); !errors.Is(err, consumer.ErrAbsent) {
		t.Errorf("of a secret that does not exist: %v", err)
	}
}

// TestDelete verifies that a consumer loses the value of a secret that is deleted.
func TestDelete(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e, c := consumertest.New(t, "a", "v1", "one")
		e.Delete("a")
		_ = c.Refresh(t.Context(), "a") // the first read that does not find it
		time.Sleep(time.Minute)
		if _, err := c.Get(t.Context(), "a"); !errors.Is(err, consumer.ErrAbsent) {
			t.Errorf("after it was deleted: %v", err)
		}
	})
}

// app is what an application does with a secret.
type app struct{ secrets *consumer.Consumer }

func (a app) password(ctx context.Context) (string, error) {
	s, err := a.secrets.Get(ctx, "app/db")
	if err != nil {
		return "", err
	}
	password, err := s.Member("password")
	return password.Reveal(), err
}

// A test rotates the credential of an application, and takes the server away.
func Example() {
	ctx := context.Background()
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("app/db", "v1", `{"user":"app","password":"correct horse"}`)
	c, err := consumer.New(ctx, consumer.Config{Client: endpoint, Secrets: []string{"app/db"}}) // New does this in a test
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	a := app{secrets: c}
	fmt.Println(a.password(ctx))

	endpoint.Put("app/db", "v2", `{"user":"app","password":"battery staple"}`)
	_ = c.Refresh(ctx, "app/db")
	fmt.Println(a.password(ctx))

	endpoint.Fail("app/db", kms.ErrUnavailable)
	fmt.Println(a.password(ctx))
	// Output:
	// correct horse <nil>
	// battery staple <nil>
	// battery staple <nil>
}
