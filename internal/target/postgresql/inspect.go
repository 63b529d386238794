package postgresql

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target"
)

// Inspect compares each credential with the verifier that the server stores, where the
// administrator may read it.
func (t *pg) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	a := &attemptAt{t: t, what: "read the verifiers of roles"}
	for _, c := range credentials {
		a.secrets = append(a.secrets, c.Secret)
	}
	out := make([]target.Liveness, len(credentials))
	conn, err := t.asAdmin(ctx, a.what, a.secrets...)
	if err != nil {
		return out, err
	}
	defer disconnect(conn)
	a.conn = conn
	able, err := a.abilities(ctx)
	if err != nil || !able.reads {
		return out, err
	}
	for i, c := range credentials {
		if out[i], err = a.liveness(ctx, c); err != nil {
			return make([]target.Liveness, len(credentials)), err
		}
	}
	return out, nil
}

// liveness also counts the date until which a password is valid: past it the server rejects the
// right one. A role that may not log in at all is for a person to look at, so of its right password
// nothing is said.
func (a *attemptAt) liveness(ctx context.Context, c target.Credential) (target.Liveness, error) {
	if checkName(c.Account) != nil {
		return target.Dead, nil
	}
	var canLogin, expired bool
	err := a.conn.QueryRow(ctx, `SELECT rolcanlogin,
			COALESCE(rolvaliduntil OPERATOR(pg_catalog.<) pg_catalog.now(), false)
		FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) $1`, c.Account).
		Scan(&canLogin, &expired)
	if errors.Is(err, pgx.ErrNoRows) {
		return target.Dead, nil
	}
	if err != nil {
		return target.NotKnown, failed(a.what, err, a.secrets...)
	}
	stored, err := a.stored(ctx, c.Account)
	if err != nil {
		return target.NotKnown, err
	}
	match, known := matches(stored, c.Account, c.Secret)
	switch {
	case stored == "", known && (!match || expired):
		return target.Dead, nil
	case known && canLogin:
		return target.Live, nil
	}
	return target.NotKnown, nil
}
