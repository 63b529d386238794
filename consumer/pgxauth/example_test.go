package pgxauth_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/pgxauth"
)

// secrets returns the Consumer of an application. The example of package consumer shows how to make
// one for a server.
func secrets() *consumer.Consumer {
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("db_cred", "v1", `{"user":"app","password":"correct horse"}`)
	c, err := consumer.New(context.Background(), consumer.Config{Client: endpoint})
	if err != nil {
		log.Fatal(err)
	}
	return c
}

func Example() {
	ctx := context.Background()
	c := secrets()
	defer c.Close()

	config, err := pgxpool.ParseConfig("host=db.example.com dbname=app sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	if err := pgxauth.Configure(config, c, "db_cred", nil); err != nil {
		log.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close() // use the pool as any other: no rotation makes a query fail
	fmt.Println("an idle connection of the previous version is closed after", pool.Config().MaxConnIdleTime)
	// Output: an idle connection of the previous version is closed after 5m0s
}
