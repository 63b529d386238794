package redisauth_test

import (
	"context"
	"fmt"
	"log"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/redisauth"
)

// secrets returns the Consumer of an application. The example of package consumer shows how to make
// one for a server.
func secrets() *consumer.Consumer {
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("cache_cred", "v1", `{"user":"app","password":"correct horse"}`)
	c, err := consumer.New(context.Background(), consumer.Config{Client: endpoint})
	if err != nil {
		log.Fatal(err)
	}
	return c
}

func Example() {
	c := secrets()
	defer c.Close()

	options := &redis.Options{Addr: "cache.example.com:6379"}
	if err := redisauth.Configure(options, c, "cache_cred", nil); err != nil {
		log.Fatal(err)
	}
	cache := redis.NewClient(options) // use it as any other: no rotation makes a command fail
	defer cache.Close()
	fmt.Println("a connection lives at most", options.ConnMaxLifetime+options.ConnMaxLifetimeJitter)
	// Output: a connection lives at most 5m0s
}
