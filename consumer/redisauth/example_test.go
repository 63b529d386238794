package redisauth_test

import (
	"context"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/redisauth"
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
	c, err := consumer.New(ctx, consumer.Config{Client: client, Secrets: []string{"cache_cred"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	options := &redis.Options{Addr: "cache.example.com:6379"}
	if err := redisauth.Configure(options, c, "cache_cred", nil); err != nil {
		log.Fatal(err)
	}
	cache := redis.NewClient(options)
	defer cache.Close()
	if err := cache.Ping(ctx).Err(); err != nil { // no rotation makes this fail
		log.Fatal(err)
	}
}
