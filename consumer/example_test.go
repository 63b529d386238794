package consumer_test

import (
	"context"
	"fmt"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// endpoint stands for a server. An application uses consumer.NewClient.
type endpoint struct{}

func (endpoint) GetSecretValue(_ context.Context, in *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error) {
	return &kms.GetSecretValueResponse{
		SecretName: in.SecretName, VersionID: "v7", SecretDataType: kms.DataText,
		SecretData: sensitive.New(`{"user":"app","password":"correct horse"}`), VersionStages: []string{kms.StageCurrent},
	}, nil
}

func (endpoint) WatchSecrets(ctx context.Context, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	if !in.Leaving {
		<-ctx.Done()
	}
	return &kms.WatchSecretsResponse{}, ctx.Err()
}

func Example() {
	ctx := context.Background()
	c, err := consumer.New(ctx, consumer.Config{Client: endpoint{}, Secrets: []string{"app/db"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	s, err := c.Get(ctx, "app/db")
	if err != nil {
		fmt.Println(err)
		return
	}
	user, _ := s.Member("user")
	password, _ := s.Member("password")
	fmt.Println("version", s.VersionID, "of", s.Name)
	fmt.Println("user", user.Reveal(), "with password", password)
	// Output:
	// version v7 of app/db
	// user app with password [redacted]
}

// A connection is opened with whichever version the target accepts, and held until it is closed.
func ExampleConsumer_Login() {
	ctx := context.Background()
	c, err := consumer.New(ctx, consumer.Config{Client: endpoint{}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	rejected := func(err error) bool { return err.Error() == "access denied" } // by the codes of the target
	s, err := c.Login(ctx, "app/db", rejected, func(_ context.Context, s *consumer.Secret) error {
		return nil // connect with s
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	release := c.Hold(s.Name, s.VersionID)
	defer release() // when the connection is closed
	fmt.Println("connected with version", s.VersionID)
	// Output: connected with version v7
}
