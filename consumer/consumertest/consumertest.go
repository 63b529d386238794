// Package consumertest serves secrets from memory to the tests of an application that uses package
// consumer. A test changes versions and injects failures. There is no server and no network.
//
//	endpoint, c := consumertest.New(t, "app/db", "v1", `{"user":"app","password":"correct horse"}`)
//	app := start(c)
//	endpoint.Put("app/db", "v2", `{"user":"app","password":"battery staple"}`)
//	err := c.Refresh(t.Context(), "app/db") // the application has v2 from here on
//
// The endpoint has no push, so a consumer gets a new version only when it reads: by
// [consumer.Consumer.Refresh], after a rejected login, or after [consumer.Config.Interval]. Reads
// of one secret begin at least a second apart, as with a server. Under [testing/synctest] a test
// does not wait for intervals and back-off. To test against the real server use package
// keyturntest.
package consumertest

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// New returns an endpoint with one secret, and a consumer that has read the secret and is closed
// when the test ends. Each change is applied to the configuration of the consumer.
func New(
	t testing.TB, name, versionID, value string, change ...func(*consumer.Config),
) (*Endpoint, *consumer.Consumer) {
	t.Helper()
	e := &Endpoint{}
	e.Put(name, versionID, value)
	config := consumer.Config{Client: e, Secrets: []string{name}, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&config)
	}
	c, err := consumer.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := c.Get(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return e, c
}

// Endpoint serves secrets from memory. The zero Endpoint is ready for use and has no secret. It is
// safe for concurrent use.
type Endpoint struct {
	mu       sync.Mutex
	secrets  map[string]map[string]version // guarded by mu; by name and label
	failures map[string]error              // guarded by mu; by name, "" stands for all
	reads    map[string]int                // guarded by mu; by name
}

var _ consumer.API = (*Endpoint)(nil)

type version struct{ id, value string }

// Put makes a version the current one, as a rotation or PutSecretValue does. The version that was
// current becomes the previous one, and a candidate ([kms.StagePending]) loses its label. If the
// secret does not exist, Put creates it.
func (e *Endpoint) Put(name, versionID, value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stages := e.stagesLocked(name)
	if current, ok := stages[kms.StageCurrent]; ok {
		stages[kms.StagePrevious] = current
	}
	stages[kms.StageCurrent] = version{versionID, value}
	delete(stages, kms.StagePending)
}

// SetStage gives a version a label, such as [kms.StagePending] for the candidate of a rotation.
func (e *Endpoint) SetStage(name, stage, versionID, value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stagesLocked(name)[stage] = version{versionID, value}
}

func (e *Endpoint) stagesLocked(name string) map[string]version {
	if e.secrets == nil {
		e.secrets = map[string]map[string]version{}
	}
	if e.secrets[name] == nil {
		e.secrets[name] = map[string]version{}
	}
	return e.secrets[name]
}

// Delete deletes a secret. A consumer keeps its value until two reads, some seconds apart, have not
// found the secret.
func (e *Endpoint) Delete(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.secrets, name)
}

// Fail makes each read of a secret fail with err from now on. The name "" stands for all secrets,
// and a nil err ends the failure. A [kms.Error] stands for an answer of the server, such as
// [kms.ErrUnavailable] or [kms.ErrNoPermission]; any other error stands for a server that cannot be
// reached.
func (e *Endpoint) Fail(name string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failures == nil {
		e.failures = map[string]error{}
	}
	e.failures[name] = err
}

// Reads returns how often a secret was read, under whichever label.
func (e *Endpoint) Reads(name string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reads[name]
}

// GetSecretValue returns the version with the requested label, by default the current one.
func (e *Endpoint) GetSecretValue(
	_ context.Context, in *kms.GetSecretValueRequest,
) (*kms.GetSecretValueResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reads == nil {
		e.reads = map[string]int{}
	}
	e.reads[in.SecretName]++
	if err := cmp.Or(e.failures[in.SecretName], e.failures[""]); err != nil {
		return nil, err
	}
	stage := cmp.Or(in.VersionStage, kms.StageCurrent)
	v, ok := e.secrets[in.SecretName][stage]
	if !ok {
		return nil, notFound(kms.CodeResourceNotFound, "the endpoint of the test has no such secret or label")
	}
	return &kms.GetSecretValueResponse{
		SecretName:     in.SecretName,
		VersionID:      v.id,
		VersionStages:  []string{stage},
		SecretData:     sensitive.New(v.value),
		SecretDataType: kms.DataText,
		SecretType:     kms.TypeGeneric,
	}, nil
}

// WatchSecrets returns the error of an endpoint without that operation.
func (e *Endpoint) WatchSecrets(context.Context, *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	return nil, notFound(kms.CodeActionNotFound, "the endpoint of the test has no push")
}

func notFound(code, message string) error {
	return &kms.Error{HTTPStatus: http.StatusNotFound, Code: code, Message: message}
}

// Held returns the oldest version of a secret that is held ([consumer.Consumer.Hold]). It returns
// "" if only the current version is held.
func Held(t testing.TB, c *consumer.Consumer, name string) string {
	t.Helper()
	for _, s := range c.Status() {
		if s.Name == name {
			return s.OldestVersionID
		}
	}
	t.Fatalf("the consumer has never read %q", name)
	return ""
}
