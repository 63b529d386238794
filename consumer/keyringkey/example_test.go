package keyringkey_test

import (
	"fmt"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/keyringkey"
)

func Example() {
	config := consumer.Config{
		// Client and Secrets as in the example of package consumer.
		LastGood: &consumer.LastGood{
			Dir: "/var/lib/app/secrets",
			Key: keyringkey.New("app-secrets"),
		},
	}
	fmt.Println("values are sealed in", config.LastGood.Dir)
	// Output: values are sealed in /var/lib/app/secrets
}
