package postgresql

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Inspect compares each credential with the verifier that the server stores, where the
// administrator may read it.
func (t *pg) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	var secrets []sensitive.Value
	for _, c := range credentials {
		secrets = append(secrets, c.Secret)
	}
	out := make([]target.Liveness, len(credentials))
	a, err := t.asAdmin(ctx, "read the verifiers of roles", secrets...)
	if err != nil {
		return out, err
	}
	defer a.close()
	if !a.able.reads {
		return out, nil
	}
	if err := a.reading(ctx); err != nil {
		return out, err
	}
	for i, c := range credentials {
		if out[i], err = a.liveness(ctx, c); err != nil {
			return make([]target.Liveness, len(credentials)), err
		}
	}
	return out, nil
}

// liveness compares one credential. A password past its VALID UNTIL is dead, because the server
// rejects it. The right password of a role with NOLOGIN is NotKnown: an operator must decide about
// that role.
func (a *attempt) liveness(ctx context.Context, c target.Credential) (target.Liveness, error) {
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
