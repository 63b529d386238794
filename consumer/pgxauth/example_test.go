package pgxauth_test

import (
	"context"
	"log"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/pgxauth"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

func Example() {
	ctx := context.Background()
	client, err := consumer.NewClient(kms.Config{
		Endpoint: "keyturn.example.com", Credentials: sign.Credentials{AccessKeyID: "id", AccessKeySecret: sensitive.New("secret")},
	})
	if err != nil {
		log.Fatal(err)
	}
	c, err := consumer.New(ctx, consumer.Config{Client: client, Secrets: []string{"db_cred"}})
	if err != nil {
		log.Fatal(err)
	}
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
	defer pool.Close()
	if err := pool.Ping(ctx); err != nil { // no rotation makes this fail
		log.Fatal(err)
	}
}
