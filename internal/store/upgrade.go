package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/secret"
)

// Upgrade brings the records of older releases to the form of this one. Each node calls it at its
// start, before it serves. It may be interrupted anywhere: the next call, on any node, does the
// rest.
func Upgrade(ctx context.Context, db *DB, log *slog.Logger) error {
	if err := moveClaims(ctx, db, log); err != nil {
		return fmt.Errorf("bring the store to this release: %w", err)
	}
	if err := BindSecretPolicies(ctx, db, log); err != nil {
		return err
	}
	return noteUses(ctx, db)
}

// The steps of [Upgrade] that a store needs once: the paths of the records that they are done.
const (
	policiesBound = "secret-policies-bound"
	usesNoted     = "uses-noted"
)

// ErrNotUpgraded means that an older release wrote the store, and that no server of this release
// has started on it yet.
var ErrNotUpgraded = errors.New("an older release wrote the store: start keyturn serve of this release once, " +
	"which upgrades it for good, or use the older release")

// CheckUpgraded returns [ErrNotUpgraded] for a store that [Upgrade] would change in a way that no
// older release reads.
func CheckUpgraded(ctx context.Context, db *DB) error {
	resp, err := db.kv.Get(ctx, metaKind.key(""))
	if err != nil {
		return unavailable(err)
	}
	if len(resp.Kvs) == 0 {
		return nil
	}
	r, err := split(metaKind.key(""), resp.Kvs[0].Value)
	if err == nil && r.format != metaFormat {
		err = ErrNotUpgraded
	}
	return err
}

// formerClaimPrefix is where releases before the first had claims, which name nothing but the
// secret.
const formerClaimPrefix = "holder/"

// claimBatch is how many claims one transaction moves. Each takes two operations of the 128 that
// etcd allows.
const claimBatch = 32

// moveClaims moves the claims on target accounts to the keys where this release looks for them.
//
// An older release would read the former keys, find no claim, and let two secrets rotate one
// account. So the description of the store gets [metaFormat] first: an older release refuses to
// open it, and one that runs in the same cluster can no longer commit changes. Then the claims
// move in batches, each in one transaction. There are none left at the former keys when a node
// begins to serve.
func moveClaims(ctx context.Context, db *DB, log *slog.Logger) error {
	if err := Do(ctx, db, (*Tx).raiseMetaFormat); err != nil {
		return err
	}
	moved := 0
	for {
		resp, err := db.kv.Get(ctx, formerClaimPrefix,
			clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(claimBatch))
		if err != nil {
			return unavailable(err)
		}
		if len(resp.Kvs) == 0 {
			break
		}
		err = Do(ctx, db, func(tx *Tx) error {
			for _, kv := range resp.Kvs {
				if err := tx.moveClaim(string(kv.Key)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		moved += len(resp.Kvs)
	}
	if moved > 0 {
		log.Info("the claims on target accounts were brought to the form of this release", "claims", moved)
	}
	return nil
}

// raiseMetaFormat writes the description of the store again if an older release wrote it.
func (tx *Tx) raiseMetaFormat() error {
	key := metaKind.key("")
	stored, err := tx.get(key)
	if err != nil {
		return err
	}
	if r, err := split(key, stored.data); err != nil || r.format == metaFormat {
		return err
	}
	m, _, err := tx.Meta()
	if err != nil {
		return err
	}
	return tx.PutMeta(m)
}

// moveClaim moves one claim. A claim that is at its new place already is newer, and stays.
func (tx *Tx) moveClaim(former string) error {
	stored, err := tx.get(former)
	if err != nil || stored.data == nil {
		return err // another node has moved it
	}
	claim, err := formerClaimKind.decode(tx.db, former, stored.data)
	if err != nil {
		return err
	}
	var ok bool
	claim.Account, claim.Target, claim.User, ok = cutClaimPath(strings.TrimPrefix(former, formerClaimPrefix))
	if !ok {
		return damaged(former)
	}
	tx.write(former, nil)
	if _, there, err := claimKind.load(tx, claimPath(claim)); err != nil || there {
		return err
	}
	return claimKind.save(tx, claim)
}

// formerClaimKind is not in the table of kinds: no record of it is left after [Upgrade].
var formerClaimKind = kind[Claim]{declaration: declaration{prefix: formerClaimPrefix}}

// cutClaimPath takes the path of a claim apart. A target's name has no ":", a user's may.
func cutClaimPath(path string) (account, target, user string, ok bool) {
	account, rest, hasAccount := strings.Cut(path, "/")
	target, user, ok = strings.Cut(rest, ":")
	return account, target, user, ok && hasAccount
}

// useBatch is how many notes one transaction writes, each by one operation.
const useBatch = 64

// UsesNoted reports whether the uses of client certificates are noted that older releases did not
// note.
func (tx *Tx) UsesNoted() (bool, error) {
	done, _, err := upgradeKind.load(tx, usesNoted)
	return done, err
}

// noteUses makes up for the [Tx.ChangeUse] that older releases did not call: it notes the client
// certificates that the settings of secrets name, also those that were deleted since.
func noteUses(ctx context.Context, db *DB) error {
	tx := Snapshot(ctx, db)
	if done, err := tx.UsesNoted(); err != nil || done {
		return err
	}
	paths := map[string]bool{}
	err := secretKind.scan(tx, "", "", func(s secret.Secret) bool {
		if certificate := s.Settings().Login.CertificateSecret; certificate != "" {
			paths[usePath(s.Account, certificate)] = true
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("find the client certificates that logins use: %w", err)
	}
	var missing []string
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		_, noted, err := attachedKind.load(tx, path)
		if err != nil {
			return fmt.Errorf("note the client certificates that logins use: %w", err)
		}
		if !noted {
			missing = append(missing, path)
		}
	}
	for batch := range slices.Chunk(missing, useBatch) {
		err := Do(ctx, db, func(tx *Tx) error {
			for _, path := range batch {
				if err := attachedKind.saveAt(tx, path, true); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("note the client certificates that logins use: %w", err)
		}
	}
	return Do(ctx, db, func(tx *Tx) error { return upgradeKind.saveAt(tx, usesNoted, true) })
}
