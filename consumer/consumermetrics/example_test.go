package consumermetrics_test

import (
	"context"
	"fmt"
	"log"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumermetrics"
	"github.com/keyturn/keyturn/consumer/consumertest"
)

func Example() {
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("app/db", "v1", "correct horse")
	c, err := consumer.New(context.Background(), consumer.Config{Client: endpoint}) // see the example of package consumer
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(consumermetrics.New(c))
	families, err := registry.Gather() // promhttp.HandlerFor(registry, …) serves them
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "keyturn_consumer_refresh_failures_total" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	// Output: keyturn_consumer_refresh_failures_total 0
}
