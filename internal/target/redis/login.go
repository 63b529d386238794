package redis

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// Verify logs in, as the application does, at every node and every further address but replicas.
func (s *server) Verify(ctx context.Context, c target.Credential) error {
	endpoints := s.endpoints()
	if len(endpoints) == 0 {
		return target.Denied.Errorf("no login endpoint of the secret is an address of the target")
	}
	return s.verify(ctx, endpoints.Deciding(), c)
}

// VerifyCopies logs in at every replica.
func (s *server) VerifyCopies(ctx context.Context, c target.Credential) error {
	return s.verify(ctx, s.endpoints().Replicas(), c)
}

// Lag returns the longest lag of the replicas.
func (s *server) Lag() time.Duration { return s.endpoints().Lag() }

func (s *server) endpoints() target.EndpointList { return s.application.At(s.LoginEndpoints()) }

func (s *server) verify(ctx context.Context, endpoints target.EndpointList, c target.Credential) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if db := s.application.Database; db != "" {
		if n, err := strconv.Atoi(db); err != nil || n < 0 {
			return target.Denied.Errorf("the login database of a Redis secret must be a number from 0, and is %q", db)
		}
	}
	return target.VerifyEach(ctx, endpoints, func(ctx context.Context, e target.Endpoint) error {
		n, err := s.dialNode(ctx, e.Address, s.certificate, c.Secret)
		if err != nil {
			return err
		}
		defer n.close()
		if err := n.login(ctx, c); err != nil || s.application.Database == "" {
			return e.Answer(err)
		}
		return n.selects(ctx, s.application.Database)
	})
}

// selects opens a database after a login. A refusal leaves the login proved.
func (n *node) selects(ctx context.Context, database string) error {
	attempt := "select database " + database
	_, err := n.do(ctx, attempt, "SELECT", database)
	var e *target.Error
	if errors.As(err, &e) && e.Class == target.Denied {
		e.Class = target.Admitted
	}
	if err == nil || n.proven {
		return err
	}
	return target.Unproven(fmt.Sprintf("%s: %s", n.addr, attempt), err)
}

var _ target.Copied = (*server)(nil)
