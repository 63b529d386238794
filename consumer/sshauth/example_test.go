package sshauth_test

import (
	"context"
	"fmt"
	"log"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/sshauth"
)

// secrets returns the Consumer of an application. The example of package consumer shows how to make
// one for a server.
func secrets() *consumer.Consumer {
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("acs/ecs/web", "v1", `{"UserName":"deploy","Password":"correct horse"}`)
	c, err := consumer.New(context.Background(), consumer.Config{Client: endpoint})
	if err != nil {
		log.Fatal(err)
	}
	return c
}

func ExampleDial() {
	c := secrets()
	defer c.Close()

	known, err := knownhosts.New("/etc/ssh/ssh_known_hosts")
	if err != nil {
		log.Fatal(err)
	}
	host := sshauth.Host{
		Addr:   "web.example.com:22",
		Config: &ssh.ClientConfig{HostKeyCallback: known},
	}
	client, err := sshauth.Dial(context.Background(), c, "acs/ecs/web", host, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

// For code that dials itself, such as a library that takes an ssh.ClientConfig.
func ExampleAuthMethods() {
	ctx := context.Background()
	c := secrets()
	defer c.Close()

	methods, err := sshauth.AuthMethods(ctx, c, "acs/ecs/web", nil) // for one connection
	if err != nil {
		log.Fatal(err)
	}
	config := &ssh.ClientConfig{User: "deploy", Auth: methods}
	fmt.Println(config.User, "has", len(config.Auth), "method")
	// Output: deploy has 1 method
}
