package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// maxGet is how long a read of a value that is at hand may take, in nanoseconds. It allocates nothing.
const maxGet = 500

// consumers measures a read by the library.
func consumers() error {
	var failure error
	result := testing.Benchmark(func(b *testing.B) {
		s := keyturntest.Start(b)
		_, err := s.Client.CreateSecret(context.Background(), &kms.CreateSecretRequest{SecretName: "s", VersionID: "v1", SecretData: sensitive.New("value")})
		if err != nil {
			b.Fatal(err)
		}
		c, err := consumer.New(context.Background(), consumer.Config{Client: s.Client, Secrets: []string{"s"}})
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
	ns, allocs := float64(result.T.Nanoseconds())/float64(result.N), result.AllocsPerOp()
	figure("consumer_get_ns", ns)
	figure("consumer_get_allocs", float64(allocs))
	if ns > maxGet || allocs > 0 {
		return fmt.Errorf("a read of a value at hand takes %.0f ns and %d allocations; the bounds are %d and 0", ns, allocs, maxGet)
	}
	return nil
}
