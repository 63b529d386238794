package sshauth_test

import (
	"context"
	"log"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/sshauth"
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
	c, err := consumer.New(ctx, consumer.Config{Client: client, Secrets: []string{"acs/ecs/web"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	known, err := knownhosts.New("/etc/ssh/ssh_known_hosts")
	if err != nil {
		log.Fatal(err)
	}
	web := sshauth.Host{Addr: "web.example.com:22", Config: &ssh.ClientConfig{HostKeyCallback: known}}
	client2, err := sshauth.Dial(ctx, c, "acs/ecs/web", web, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer client2.Close()
}
