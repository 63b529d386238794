package consumer_test

import (
	"context"
	"fmt"
	"log"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// An application makes one Consumer at its start, for a server.
func ExampleNewClient() {
	client, err := consumer.NewClient(kms.Config{
		Endpoint: "keyturn.example.com",
		Credentials: sign.Credentials{
			AccessKeyID:     "id",
			AccessKeySecret: sensitive.New("secret"), // read it from a file, not from the source
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	c, err := consumer.New(context.Background(), consumer.Config{
		Client:  client,
		Secrets: []string{"app/db"},
		// The application starts with the last known values while the server is away.
		LastGood: &consumer.LastGood{
			Dir: "/var/lib/app/secrets",
			Key: consumer.SystemdCredential("secrets-key"),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
}

func Example() {
	ctx := context.Background()
	endpoint := &consumertest.Endpoint{} // in the place of a server; see NewClient
	endpoint.Put("app/db", "v7", `{"user":"app","password":"correct horse"}`)
	c, err := consumer.New(ctx, consumer.Config{Client: endpoint, Secrets: []string{"app/db"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	s, err := c.Get(ctx, "app/db") // call Get for each use: a rotation then needs no restart
	if err != nil {
		log.Fatal(err)
	}
	user, err := s.Member("user")
	if err != nil {
		log.Fatal(err)
	}
	password, err := s.Member("password")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("version", s.VersionID, "of", s.Name)
	fmt.Println("user", user.Reveal(), "with password", password)
	// Output:
	// version v7 of app/db
	// user app with password [redacted]
}

// Login opens a connection with whichever version the target accepts; Hold reports the version
// until the connection is closed.
func ExampleConsumer_Login() {
	ctx := context.Background()
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("app/db", "v7", `{"user":"app","password":"correct horse"}`)
	c, err := consumer.New(ctx, consumer.Config{Client: endpoint})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	rejected := func(err error) bool { return err.Error() == "access denied" } // the target's error for a wrong credential
	s, err := c.Login(ctx, "app/db", rejected, func(_ context.Context, s *consumer.Secret) error {
		return nil // connect with s
	})
	if err != nil {
		log.Fatal(err)
	}
	release := c.Hold(s.Name, s.VersionID)
	defer release() // when the connection is closed
	fmt.Println("connected with version", s.VersionID)
	// Output: connected with version v7
}
