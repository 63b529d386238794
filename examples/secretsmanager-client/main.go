// Command secretsmanager-client reads a secret with the cloud's own Secrets Manager client for Go,
// including its cache and refresh. It also makes the client verify the server's certificate, which
// the client does not do by default.
//
//	go run ./examples/secretsmanager-client DATA_DIR/admin.json SECRET
//
// DATA_DIR/admin.json is written by `keyturn serve`.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"

	cloud "github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
	"github.com/aliyun/aliyun-secretsmanager-client-go/sdk"
)

// verified makes the calls of the Secrets Manager client. It implements its interface
// service.SecretManagerClient.
type verified struct {
	mu     sync.Mutex // the client of the SDK is not safe for concurrent use
	client *kms.Client
}

func newVerified(region, endpoint, accessKeyID, accessKeySecret string, ca []byte) (*verified, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the CA file holds no certificate")
	}
	config := cloud.NewConfig().WithHttpTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}})
	key := credentials.NewAccessKeyCredential(accessKeyID, accessKeySecret)
	client, err := kms.NewClientWithOptions(region, config, key)
	if err != nil {
		return nil, err
	}
	client.Domain = endpoint
	return &verified{client: client}, nil
}

func (v *verified) Init() error { return nil }

func (v *verified) GetSecretValue(request *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.client.GetSecretValue(request)
}

func (v *verified) Close() error { return nil }

func run(path, name string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var admin map[string]string
	if err := json.Unmarshal(data, &admin); err != nil {
		return "", err
	}
	ca, err := os.ReadFile(admin["ca_file"])
	if err != nil {
		return "", err
	}
	source, err := newVerified(admin["region"], admin["endpoint"], admin["access_key_id"], admin["access_key_secret"], ca)
	if err != nil {
		return "", err
	}
	client, err := sdk.NewSecretCacheClientBuilder(source).WithSecretTTL(name, 60_000).Build() // milliseconds
	if err != nil {
		return "", err
	}
	return client.GetStringValue(name)
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: secretsmanager-client DATA_DIR/admin.json SECRET")
	}
	value, err := run(os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(value), "bytes")
}
