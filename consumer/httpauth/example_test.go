package httpauth_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/httpauth"
)

// secrets returns the Consumer of an application. The example of package consumer shows how to make
// one for a server.
func secrets() *consumer.Consumer {
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("partner/token", "v1", "token-1")
	c, err := consumer.New(context.Background(), consumer.Config{Client: endpoint})
	if err != nil {
		log.Fatal(err)
	}
	return c
}

func Example() {
	c := secrets()
	defer c.Close()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("the server gets", r.Header.Get("X-Api-Key"))
	}))
	defer api.Close()

	transport, err := httpauth.New(c, "partner/token", &httpauth.Options{
		Origins: []string{api.URL}, // such as https://api.example.com
		Scheme:  httpauth.Header,
		Header:  "X-Api-Key",
	})
	if err != nil {
		log.Fatal(err)
	}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	response, err := client.Get(api.URL + "/orders") // no rotation makes this a 401
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	fmt.Println(response.Status)
	// Output:
	// the server gets token-1
	// 200 OK
}
