// Command consumer keeps a secret of a Keyturn server in memory and prints each version that
// becomes current.
//
//	go run ./examples/consumer app/db
//
// KEYTURN_ENDPOINT, KEYTURN_CA_FILE, KEYTURN_ACCESS_KEY_ID and KEYTURN_ACCESS_KEY_SECRET name the
// server and the access key.
package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: consumer SECRET")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, name string) error {
	ca, err := os.ReadFile(os.Getenv("KEYTURN_CA_FILE")) // a copy of DATA_DIR/tls/ca.pem
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client, err := consumer.NewClient(kms.Config{
		Endpoint: os.Getenv("KEYTURN_ENDPOINT"), // host:port
		RootCAs:  roots,                         // leave it out if the system trusts the certificate
		Credentials: sign.Credentials{
			AccessKeyID:     os.Getenv("KEYTURN_ACCESS_KEY_ID"),
			AccessKeySecret: sensitive.New(os.Getenv("KEYTURN_ACCESS_KEY_SECRET")),
		},
	})
	if err != nil {
		return err
	}
	c, err := consumer.New(ctx, consumer.Config{Client: client, Secrets: []string{name}})
	if err != nil {
		return err
	}
	defer c.Close()
	changes, unsubscribe := c.Changes()
	defer unsubscribe()
	for shown := ""; ; {
		s, err := c.Get(ctx, name) // from memory after the first time: call it for each use
		if err != nil {
			return err
		}
		password, err := s.Member("password") // prints as [redacted]; password.Reveal() is the text
		if err != nil {
			return err
		}
		if s.VersionID != shown {
			shown = s.VersionID
			fmt.Fprintf(out, "version %s: a password of %d bytes, %s\n", shown, len(password.Reveal()), password)
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return nil
		}
	}
}
