// Command official-sdk stores a secret in a Keyturn server and reads it back, with the cloud's own
// Go SDK.
//
//	go run ./examples/official-sdk DATA_DIR/admin.json
//
// DATA_DIR/admin.json is written by `keyturn serve`.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	kms "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"
)

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: official-sdk DATA_DIR/admin.json")
	}
	if err := run(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func run(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var admin map[string]string
	if err := json.Unmarshal(data, &admin); err != nil {
		return err
	}
	ca, err := os.ReadFile(admin["ca_file"])
	if err != nil {
		return err
	}
	client, err := kms.NewClient(&openapi.Config{
		Endpoint:        tea.String(admin["endpoint"]), // host:port
		AccessKeyId:     tea.String(admin["access_key_id"]),
		AccessKeySecret: tea.String(admin["access_key_secret"]),
		Ca:              tea.String(string(ca)),
	})
	if err != nil {
		return err
	}
	_, err = client.CreateSecret(&kms.CreateSecretRequest{
		SecretName: tea.String("example/sdk"),
		VersionId:  tea.String("v1"),
		SecretData: tea.String("from the SDK"),
	})
	var refused *tea.SDKError
	if errors.As(err, &refused) && tea.StringValue(refused.Code) == "Rejected.ResourceExist" {
		err = nil // by an earlier run
	}
	if err != nil {
		return err
	}
	got, err := client.GetSecretValue(&kms.GetSecretValueRequest{SecretName: tea.String("example/sdk")})
	if err != nil {
		return err
	}
	fmt.Println(tea.StringValue(got.Body.VersionId), tea.StringValue(got.Body.SecretData))
	return nil
}
