// Package demo shows Keyturn at work: Run has a throw-away server rotate an account at a live
// target by itself, again and again, plays both documented rotations by a producer beside it,
// checks each step, and counts what a consumer sees of it.
//
// It holds the live systems for that: a PostgreSQL cluster and an OpenSSH server started for the
// occasion, an SSH host inside this process for machines that have neither, and an OAuth 2.0
// provider.
//
// The targets are real in what matters: they store a verifier or a public key, not the credential,
// and they answer a login with the old one after a rotation with "no". They are throw-away: they
// listen on loopback, trade durability for speed, and Close removes all they wrote.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/keyturn/keyturn/sensitive"
)

// Target is a live system that accepts the credential of one account.
//
// Register and Login may be called at the same time from several goroutines. Errors never hold any
// part of a credential.
type Target interface {
	// Name is for people: "PostgreSQL 15.18, role app, 127.0.0.1:40123".
	Name() string

	// Registration says what Register does, in the target's own words and without any secret.
	Registration() string

	// NewCredential makes secret data, compact JSON, with that generated password.
	NewCredential(password sensitive.Value) (sensitive.Value, error)

	// Register makes this credential the one and only that the target accepts. Twice is the same as
	// once. When it has returned nil, every later Login sees it.
	Register(ctx context.Context, data sensitive.Value) error

	// Login opens one fresh connection and runs one trivial command. Only a target that answered
	// "no" gives ErrRejected; a target that could not be asked gives another error.
	Login(ctx context.Context, data sensitive.Value) error

	// Managed makes the account that the engine rotates by itself. Register does not touch it. It
	// is called once.
	Managed(ctx context.Context) (Managed, error)

	// Close stops the system and removes what it wrote. A second call does nothing.
	Close() error
}

// Managed is an account that the engine rotates, and what it has to be told for that.
type Managed struct {
	// Name is for people, as that of a Target.
	Name string
	// Kind and Config are what the live system is registered with, Admin the credential that
	// changes others; zero where an account changes itself.
	Kind, Config string
	Admin        sensitive.Value
	// Accounts is the account policy; none means every ordinary account.
	Accounts []string
	// Secret, Type and Extended are name, type and ExtendedConfig of the secret, Data is its first
	// version, which the target accepts.
	Secret, Type, Extended string
	Data                   sensitive.Value
	// Apply and Retire say what the engine will do at the target, in its own words and without any
	// secret.
	Apply, Retire string
	// Login is as that of a Target.
	Login func(ctx context.Context, data sensitive.Value) error
}

// ErrRejected is the answer of a target that refuses a credential.
var ErrRejected = errors.New("the target rejected the credential")

// accountName is the account of the targets that can have one of any name.
const accountName = "app"

// loginTimeout bounds a login whose context has no deadline of its own.
const loginTimeout = 10 * time.Second

// checkPassword accepts printable ASCII without spaces: what connection URLs, shells and SCRAM's
// string preparation all leave as it is.
func checkPassword(password string) error {
	if password == "" {
		return errors.New("the generated password is empty")
	}
	if strings.ContainsFunc(password, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("the generated password must be printable ASCII without spaces")
	}
	return nil
}

// encodeData writes v as compact JSON, with < > & left readable: the data is for programs, not for
// HTML.
func encodeData(v any) (sensitive.Value, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return sensitive.Value{}, errors.New("encode secret data")
	}
	return sensitive.New(strings.TrimSuffix(b.String(), "\n")), nil
}

// decodeData reads secret data. Errors of encoding/json quote their input, so they go no further.
func decodeData(data sensitive.Value, into any) error {
	if err := json.Unmarshal([]byte(data.Reveal()), into); err != nil {
		return errors.New("the secret data is not a JSON object of strings")
	}
	return nil
}

// safeReason says why a connection failed. Errors of drivers may quote their configuration, errors
// of the network hold addresses only; of the former nothing is kept.
func safeReason(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	return errors.New("the target broke off without an answer")
}
