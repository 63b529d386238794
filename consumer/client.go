package consumer

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/kms"
)

// NewClient returns a client for [Config.Client]. It sends each call once, because a [Consumer] has
// its own back-off. It has no timeout, because a Consumer bounds every call. It detects a dead
// connection within a minute. If the configuration has an HTTPClient or MaxAttempts, NewClient uses
// them instead.
func NewClient(config kms.Config) (*kms.Client, error) {
	if config.MaxAttempts == 0 {
		config.MaxAttempts = 1
	}
	if config.HTTPClient == nil {
		config.HTTPClient = &http.Client{Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			TLSClientConfig:     &tls.Config{RootCAs: config.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 5 * time.Second,
			ForceAttemptHTTP2:   true,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
			MaxIdleConnsPerHost: maxReads,
			IdleConnTimeout:     90 * time.Second,
		}}
	}
	client, err := kms.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("consumer: %w", err)
	}
	return client, nil
}
