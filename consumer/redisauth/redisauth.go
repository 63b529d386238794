// Package redisauth opens the connections of a go-redis client with the credential in a secret,
// also across rotations: no login of the application fails, and it changes nothing but the options
// of its client.
//
//	options := &redis.Options{Addr: "cache.example.com:6379"}
//	err := redisauth.Configure(options, c, "cache_cred", nil)
//	client := redis.NewClient(options)
//
// # Behavior
//
//   - Each connection is opened with the current version. If the server rejects it, the package
//     reads the secret again and repeats the login with the version that is current then, the
//     candidate of a rotation under way, and the previous version ([consumer.Consumer.Login]),
//     within [consumer.Config.LoginLimit].
//   - An idle connection is closed at a random age between one half and the whole of
//     [Options.DrainWithin] (by default 5 minutes). After a promotion, connections of the previous
//     version are therefore replaced one by one, well before the grace period of the rotation (by
//     default 1 hour) ends.
//   - Every open connection holds its version ([consumer.Consumer.Hold]), so the server knows which
//     versions are in use. go-redis checks the age of a connection only when it takes it from the
//     pool, so connections of an unused client stay open. An idle connection that is older than
//     DrainWithin holds nothing, because the pool does not use it again.
//
// # How it works
//
// The package logs in with AUTH when it dials a connection, and does not use the credentials
// providers of go-redis. Those get no second attempt after a rejection, log in twice then (HELLO,
// then AUTH), and do not report whether a repeated authentication on an open connection succeeded,
// so the held version would not be known.
//
// A client of Redis Sentinel dials sentinels and servers with the same function, so this package
// cannot configure it.
package redisauth

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/internal/adapter"
)

// Options change the defaults. nil means the zero Options.
type Options struct {
	// Format says where in the value the credential is. The zero Format finds the usual members. If
	// the value names no account, the default user logs in.
	Format credential.Format
	// DrainWithin is the maximum age of a connection. 0 means 5 minutes. Keep it below the grace
	// period of the rotation.
	DrainWithin time.Duration
	// Rejected reports whether an error of a login means that the credential was not accepted. nil
	// means the function [Rejected].
	Rejected func(error) bool
}

// Rejected reports whether Redis or Valkey has answered that it does not accept a credential: with
// WRONGPASS or, before version 6, with "ERR invalid password".
func Rejected(err error) bool {
	var e *ServerError
	return errors.As(err, &e) && (e.Code() == "WRONGPASS" || strings.HasPrefix(e.text, "ERR invalid password"))
}

// ServerError is the error with which a server answers AUTH.
type ServerError struct{ text string }

// Error returns the text of the server with a prefix.
func (e *ServerError) Error() string { return "redisauth: the server answers to AUTH: " + e.text }

// Code returns the first word of the server's text, such as WRONGPASS.
func (e *ServerError) Code() string {
	code, _, _ := strings.Cut(e.text, " ")
	return code
}

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// Configure makes a client open its connections with a secret. It replaces o.Dialer, and dials with
// the one that was set. It sets ConnMaxLifetime to [Options.DrainWithin], unless a lower one is
// set, and ConnMaxLifetimeJitter. It also sets PoolFIFO, so that a pool in use takes each of its
// connections in turn, and notices their age.
func Configure(o *redis.Options, c *consumer.Consumer, secret string, options *Options) error {
	a, err := adapter.New("redisauth", c, secret, (*adapter.Options)(options), Rejected)
	switch {
	case err != nil:
		return err
	case o == nil:
		return errors.New("redisauth: the options of the client are missing")
	case o.Username != "" || o.Password != "",
		o.CredentialsProvider != nil,
		o.CredentialsProviderContext != nil,
		o.StreamingCredentialsProvider != nil:
		return errors.New("redisauth: the options of the client have credentials already; leave them out")
	}
	limit := a.Options.DrainWithin
	if o.ConnMaxLifetime > 0 {
		limit = min(limit, o.ConnMaxLifetime)
	}
	o.Dialer = dialAndLogIn(a, o, limit)
	o.ConnMaxLifetime, o.ConnMaxLifetimeJitter = limit*3/4, limit/4 // from one half to the whole
	o.PoolFIFO = true
	return nil
}

// ConfigureCluster is [Configure] for a client of a cluster whose nodes have the same accounts.
func ConfigureCluster(o *redis.ClusterOptions, c *consumer.Consumer, secret string, options *Options) error {
	if o == nil {
		return Configure(nil, c, secret, options)
	}
	node := &redis.Options{
		Dialer:                       o.Dialer,
		Username:                     o.Username,
		Password:                     o.Password,
		CredentialsProvider:          o.CredentialsProvider,
		CredentialsProviderContext:   o.CredentialsProviderContext,
		StreamingCredentialsProvider: o.StreamingCredentialsProvider,
		TLSConfig:                    o.TLSConfig,
		DialTimeout:                  o.DialTimeout,
		ConnMaxLifetime:              o.ConnMaxLifetime,
	}
	if err := Configure(node, c, secret, options); err != nil {
		return err
	}
	o.Dialer, o.PoolFIFO = node.Dialer, node.PoolFIFO
	o.ConnMaxLifetime, o.ConnMaxLifetimeJitter = node.ConnMaxLifetime, node.ConnMaxLifetimeJitter
	return nil
}

const defaultDialTimeout = 5 * time.Second

// dialAndLogIn returns a dialer that logs in. It dials with o.Dialer, or else as go-redis would.
func dialAndLogIn(a *adapter.Adapter, o *redis.Options, limit time.Duration) dialer {
	dial := o.Dialer
	if dial == nil {
		like := &redis.Options{TLSConfig: o.TLSConfig, DialTimeout: o.DialTimeout}
		if like.DialTimeout <= 0 {
			like.DialTimeout = defaultDialTimeout
		}
		dial = redis.NewDialer(like)
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		var conn net.Conn
		held, err := a.Login(ctx, func(ctx context.Context, _ *consumer.Secret, cred credential.Credential) (err error) {
			if conn, err = dial(ctx, network, addr); err != nil {
				return err
			}
			if err = authenticate(ctx, conn, cred); err != nil {
				_ = conn.Close()
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		return hold(conn, a, held, limit), nil
	}
}

// authenticate sends AUTH and reads the answer, which is one line. The server sends nothing else
// until the next command, so the buffer holds nothing after that line.
func authenticate(ctx context.Context, conn net.Conn, cred credential.Credential) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(defaultDialTimeout)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return fmt.Errorf("redisauth: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(command(cred)); err != nil {
		return fmt.Errorf("redisauth: send AUTH: %w", err)
	}
	line, err := bufio.NewReaderSize(conn, maxAnswer).ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("redisauth: the answer to AUTH: %w", err)
	}
	answer := strings.TrimRight(string(line), "\r\n")
	switch {
	case answer == "+OK":
	case strings.HasPrefix(answer, "-"):
		return &ServerError{text: answer[1:]}
	default:
		return errors.New("redisauth: the server does not speak the protocol of Redis")
	}
	if !stop() {
		return fmt.Errorf("redisauth: %w", context.Cause(ctx))
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("redisauth: %w", err)
	}
	return nil
}

// command returns the command AUTH for a credential.
func command(cred credential.Credential) []byte {
	words := []string{"AUTH", cred.Account, cred.Secret.Reveal()}
	if cred.Account == "" {
		words = slices.Delete(words, 1, 2)
	}
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

const maxAnswer = 1024
