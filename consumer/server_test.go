package consumer_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestRealServer goes through the life of a consumer with a real server: push in well under a
// second, an outage, a start from disk during it, and no goroutine left.
func TestRealServer(t *testing.T) { // not parallel: it counts goroutines
	data := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(data))
	ctx := t.Context()
	must(s.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
		SecretName: "db",
		VersionID:  "v1",
		SecretData: sensitive.New("hunter2-marker-1"),
	}))(t)
	log := &support.Log{}
	place := t.TempDir()
	open := func() *consumer.Consumer {
		client := must(consumer.NewClient(kms.Config{
			Endpoint:    s.Endpoint,
			Credentials: s.Credentials,
			RootCAs:     s.RootCAs,
		}))(t)
		return must(consumer.New(ctx, consumer.Config{
			Client: client, Secrets: []string{"db"}, Logger: slog.New(slog.NewJSONHandler(log, nil)),
			LastGood: &consumer.LastGood{Dir: place + "/data", Key: consumer.KeyFile(place + "/keys/key")},
		}))(t)
	}
	before := runtime.NumGoroutine()
	c := open()
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !c.Status()[0].Push; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no push: %+v", c.Status())
		}
	}
	told, stop := c.Changes("db")
	defer stop()
	begin := time.Now()
	must(s.Client.PutSecretValue(ctx, &kms.PutSecretValueRequest{
		SecretName: "db",
		VersionID:  "v2",
		SecretData: sensitive.New("hunter2-marker-2"),
	}))(t)
	select {
	case <-told:
	case <-time.After(10 * time.Second):
		t.Fatal("the change did not arrive")
	}
	if got := must(c.Get(ctx, "db"))(t); got.VersionID != "v2" || got.Value().Reveal() != "hunter2-marker-2" {
		t.Errorf("version %s after the change", got.VersionID)
	}
	t.Logf("a change was there after %v", time.Since(begin).Round(time.Millisecond))
	if _, err := c.Get(ctx, "none"); !errors.Is(err, consumer.ErrAbsent) || !errors.Is(err, kms.ErrResourceNotFound) {
		t.Errorf("Get of what is not there = %v", err)
	}
	page := must(json.Marshal(struct {
		S []consumer.Status
		C consumer.Counters
	}{c.Status(), c.Counters()}))(t)

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := must(c.Get(ctx, "db"))(t); got.VersionID != "v2" {
		t.Errorf("version %s while the server is away", got.VersionID)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	c = open()
	if got := must(c.Get(ctx, "db"))(t); got.VersionID != "v2" || got.Source != consumer.SourceDisk ||
		got.Value().Reveal() != "hunter2-marker-2" {
		t.Errorf("version %s from %s at a start while the server is away", got.VersionID, got.Source)
	}
	if err := c.Ready(); err == nil {
		t.Error("ready while the server is away")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if text := log.String() + string(page); strings.Contains(text, "hunter2") {
		t.Errorf("the log or the status shows a value: %s", text)
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("goroutines are left: %d, then %d\n%s",
				before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}
