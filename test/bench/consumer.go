package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/agent"
	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// minAgent is the rate of reads by an agent's wire API, to that of the server that it stands
// before.
const minAgent = 0.9

// maxGet is how much longer than a look at the clock a read of a value that is at hand may take.
// It allocates nothing.
const maxGet = 6

// consumers measures a read by the library.
func consumers() error {
	var failure error
	result := testing.Benchmark(func(b *testing.B) {
		s := keyturntest.Start(b)
		_, err := s.Client.CreateSecret(context.Background(), &kms.CreateSecretRequest{
			SecretName: "s",
			VersionID:  "v1",
			SecretData: sensitive.New("value"),
		})
		if err != nil {
			b.Fatal(err)
		}
		c, err := consumer.New(context.Background(), consumer.Config{
			Client:  s.Client,
			Secrets: []string{"s"},
			Logger:  slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Get(context.Background(), "s"); err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Get(context.Background(), "s"); err != nil {
				failure = err
			}
		}
	})
	if failure != nil || result.N == 0 {
		return errors.Join(errors.New("the consumer could not be measured"), failure)
	}
	clock := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			_ = time.Now()
		}
	})
	each := func(r testing.BenchmarkResult) float64 { return float64(r.T.Nanoseconds()) / float64(r.N) }
	figure("consumer_get_ns", each(result))
	figure("consumer_get_to_clock", each(result)/each(clock))
	figure("consumer_get_allocs", float64(result.AllocsPerOp()))
	if times, allocs := each(result)/each(clock), result.AllocsPerOp(); times > maxGet || allocs > 0 {
		return fmt.Errorf("a read of a value at hand takes %.1f times a look at the clock, and %d allocations; the bounds "+
			"are %d and 0", times, allocs, maxGet)
	}
	return nil
}

// agents compares GetSecretValue of an agent with that of the server itself, both signed and
// verified.
func (s *subject) agents() error {
	dir, err := os.MkdirTemp("", "keyturn-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	key := fmt.Sprintf(`{"AccessKeyId":%q,"AccessKeySecret":%q}`, s.credentials.AccessKeyID,
		s.credentials.AccessKeySecret.Reveal())
	config := fmt.Sprintf("endpoint: http://%s\naccess_key: {file: %s/key.json}\nsecrets: [%s]\nkms: {listen: "+
		"\"127.0.0.1:0\"}\n", s.node.HTTPEndpoint(), dir, name(0))
	if err := errors.Join(os.WriteFile(dir+"/key.json", []byte(key), 0o600),
		os.WriteFile(dir+"/agent.yaml", []byte(config), 0o600)); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	serving, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- agent.Run(ctx, agent.Options{
			Path: dir + "/agent.yaml", Logger: func(agent.Log) *slog.Logger { return slog.New(slog.DiscardHandler) },
			Door: func(g *agent.Gate, a *auth.Authenticator, log *slog.Logger) http.Handler {
				return &rpc.Door{Gate: g, Auth: a, Log: log}
			},
			Serving: func(places map[string]string) { serving <- places["kms"] },
		})
	}()
	select {
	case address := <-serving:
		err = s.throughAgent("http://" + address)
	case err = <-done:
		return errors.Join(errors.New("the agent has ended"), err)
	}
	stop()
	return errors.Join(err, <-done)
}

func (s *subject) throughAgent(endpoint string) error {
	var p pairs
	for !p.enough(minAgent) {
		direct, err := s.load("http://"+s.node.HTTPEndpoint(), "v3", 1)
		if err != nil {
			return err
		}
		through, err := s.load(endpoint, "v3", 1)
		if err != nil {
			return err
		}
		p.add(direct, through)
	}
	return p.judge("agent_read_to_server", minAgent)
}
