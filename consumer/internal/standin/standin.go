// Package standin is an endpoint in memory, without push, for the tests of the adapters.
package standin

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// Pending marks the candidate of a rotation.
const Pending = "ACSPending"

// Endpoint has one secret.
type Endpoint struct {
	name string

	mu     sync.Mutex
	stages map[string]version // guarded by mu
	reads  int                // guarded by mu
}

type version struct{ id, value string }

// New returns an endpoint with one secret, and a consumer of it that ends with the test.
func New(t testing.TB, name, id, value string, change ...func(*consumer.Config)) (*Endpoint, *consumer.Consumer) {
	t.Helper()
	e := &Endpoint{name: name, stages: map[string]version{kms.StageCurrent: {id, value}}}
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

// Set gives a version a label.
func (e *Endpoint) Set(stage, id, value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stages[stage] = version{id, value}
}

// Promote makes a version current, and the current one the previous.
func (e *Endpoint) Promote(id, value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stages[kms.StagePrevious] = e.stages[kms.StageCurrent]
	e.stages[kms.StageCurrent] = version{id, value}
	delete(e.stages, Pending)
}

// Reads is how often a value was read.
func (e *Endpoint) Reads() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reads
}

// GetSecretValue answers for the one secret.
func (e *Endpoint) GetSecretValue(_ context.Context, in *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reads++
	stage := in.VersionStage
	if stage == "" {
		stage = kms.StageCurrent
	}
	v, ok := e.stages[stage]
	if in.SecretName != e.name || !ok {
		return nil, &kms.Error{HTTPStatus: 404, Code: kms.CodeResourceNotFound, Message: "no such secret"}
	}
	return &kms.GetSecretValueResponse{
		SecretName: e.name, VersionID: v.id, VersionStages: []string{stage}, SecretData: sensitive.New(v.value), SecretDataType: kms.DataText, SecretType: kms.TypeGeneric,
	}, nil
}

// WatchSecrets answers as an endpoint that has no such operation.
func (e *Endpoint) WatchSecrets(context.Context, *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	return nil, &kms.Error{HTTPStatus: 404, Code: kms.CodeActionNotFound, Message: "no such operation"}
}

// Held is the oldest version that is held; empty when it is the current one.
func Held(t testing.TB, c *consumer.Consumer, name string) string {
	t.Helper()
	for _, s := range c.Status() {
		if s.Name == name {
			return s.OldestVersionID
		}
	}
	t.Fatalf("%s is not known", name)
	return ""
}
