package server_test

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// BenchmarkGetSecretValue is one verified and audited call without the network.
func BenchmarkGetSecretValue(b *testing.B) {
	for _, version := range []string{"v1", "v3"} {
		b.Run(version, func(b *testing.B) { benchmarkGet(b, version) })
	}
}

func benchmarkGet(b *testing.B, version string) {
	node, err := server.New(b.Context(), server.Config{DataDir: b.TempDir(), ListenHTTP: "127.0.0.1:0", NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	<-node.Ready()
	defer func() {
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	admin, _ := node.Admin()
	c := signCredentials(admin)
	client, err := kms.NewClient(kms.Config{Endpoint: "http://" + node.HTTPEndpoint(), Credentials: c})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := client.CreateSecret(b.Context(), &kms.CreateSecretRequest{
		SecretName: "app/db",
		VersionID:  "v1",
		SecretData: sensitive.New("s3cret"),
	}); err != nil {
		b.Fatal(err)
	}
	requests := make([]*http.Request, 0, 50_000)
	for range cap(requests) {
		requests = append(requests, getRequest(b, c, version))
	}
	handler, next := node.Handler(), 0
	b.ReportAllocs()
	for b.Loop() {
		if next == len(requests) {
			b.StopTimer()
			for i := range requests {
				requests[i] = getRequest(b, c, version)
			}
			next = 0
			b.StartTimer()
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, requests[next])
		if next++; w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}

func getRequest(b *testing.B, c sign.Credentials, version string) *http.Request {
	params := sign.Params{{Name: "SecretName", Value: "app/db"}}
	var err error
	if version == "v1" {
		params = append(params, sign.Param{Name: "Action", Value: "GetSecretValue"},
			sign.Param{Name: "Version", Value: kms.Version}, sign.Param{Name: "Format", Value: "JSON"})
		if params, err = c.SignV1(http.MethodGet, params, time.Now(), rand.Text()); err != nil {
			b.Fatal(err)
		}
	}
	query := url.Values{}
	for _, p := range params {
		query.Set(p.Name, p.Value)
	}
	r := httptest.NewRequest(http.MethodGet, "/?"+query.Encode(), nil)
	if version == "v3" {
		if err := c.SignHTTP(r, sign.Call{
			Action:  "GetSecretValue",
			Version: kms.Version,
			Time:    time.Now(),
			Nonce:   rand.Text(),
		}); err != nil {
			b.Fatal(err)
		}
	}
	return r
}
