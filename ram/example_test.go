package ram_test

import (
	"context"
	"fmt"
	"log"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// A user who may read the secrets of one application, and nothing else.
func Example() {
	c, err := kms.NewClient(kms.Config{Endpoint: "kms.example.test", Credentials: sign.Credentials{
		AccessKeyID: "id", AccessKeySecret: sensitive.New("secret"),
	}})
	if err != nil {
		log.Fatal(err)
	}
	ctx, users := context.Background(), ram.New(c)
	steps := []func() error{
		func() error {
			_, err := users.CreatePolicy(ctx, &ram.CreatePolicyRequest{
				PolicyName: "read-app",
				PolicyDocument: `{"Version": "1", "Statement": [
					{"Effect": "Allow", "Action": "kms:GetSecretValue", "Resource": "acs:kms:*:*:secret/app/*"}]}`,
			})
			return err
		},
		func() error {
			_, err := users.CreateUser(ctx, &ram.CreateUserRequest{UserName: "app"})
			return err
		},
		func() error {
			_, err := users.AttachPolicyToUser(ctx, &ram.UserPolicyRequest{
				UserName:   "app",
				PolicyName: "read-app",
				PolicyType: ram.TypeCustom,
			})
			return err
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			log.Fatal(err)
		}
	}
	key, err := users.CreateAccessKey(ctx, &ram.CreateAccessKeyRequest{UserName: "app"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(key.AccessKey.AccessKeyID)
}
