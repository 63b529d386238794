package smtpauth_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/textproto"
	"testing"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/smtpauth"
)

func ExampleDial() {
	ctx := context.Background()
	c, err := consumer.New(ctx, consumer.Config{Client: &consumertest.Endpoint{}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	client, err := smtpauth.Dial(ctx, c, "mail", smtpauth.Host{Name: "mail.example.com"}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func TestRejected(t *testing.T) {
	t.Parallel()
	for code, want := range map[int]bool{535: true, 454: false} {
		err := fmt.Errorf("log in: %w", &textproto.Error{Code: code})
		if got := smtpauth.Rejected(err); got != want {
			t.Errorf("Rejected of %d = %v, want %v", code, got, want)
		}
	}
	if smtpauth.Rejected(errors.New("535")) {
		t.Error("an error that is no answer of a server counts as a rejection")
	}
}
