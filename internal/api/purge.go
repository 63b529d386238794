package api

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

const (
	purgeBatch = 64
	purgeTime  = 10 * time.Second // bounds the deletion of one secret
)

// Purge removes the secrets whose planned deletion time has come, each recorded as done by the
// service itself, and returns when the next one is due; zero when none is planned. What is due is
// in the store, so a restart changes nothing, and two nodes may do it at once.
func (g *Gate) Purge(ctx context.Context) (next time.Time, err error) {
	for {
		now := g.env.Now().UTC()
		due, at, err := g.dueBefore(ctx, now)
		if err != nil || len(due) == 0 {
			return at, err
		}
		for _, d := range due {
			if err := g.purge(ctx, d, now); err != nil {
				return at, err
			}
		}
	}
}

func (g *Gate) dueBefore(ctx context.Context, now time.Time) ([]store.Due, time.Time, error) {
	return store.Snapshot(ctx, g.env.DB).DueBefore(now, purgeBatch)
}

func (g *Gate) purge(ctx context.Context, d store.Due, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, purgeTime)
	defer cancel()
	c := &Call{Env: g.env, At: now, Request: protocol.Request{
		ID: uuid.NewString(), Action: "PurgeSecret", Version: kms.Version,
		Principal: policy.Principal{Kind: policy.KindSystem, Account: d.Account, Name: "purge"},
	}}
	c.resource = resource{arn: secret.ARN(g.env.Region, d.Account, d.Name), secret: d.Name}
	if err := g.record(ctx, c, audit.Intent, audit.Allow, "", true); err != nil {
		return err
	}
	err := store.Do(ctx, g.env.DB, func(tx *store.Tx) error {
		return tx.PurgeSecret(d.Account, d.Name, now)
	})
	if rerr := g.record(context.WithoutCancel(ctx), c, audit.Outcome, audit.Allow, outcome(err), true); rerr != nil {
		return rerr
	}
	return err
}
