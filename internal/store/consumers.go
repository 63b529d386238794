package store

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/keyturn/keyturn/internal/rotation"
)

// consumersOf returns the path under which the consumers of a secret are.
func consumersOf(account, secret string) string { return in(account, secret) + ":" }

// consumerPath is where the record of a consumer is. Consumers with an instance name are the same
// wherever they call from; those without are told apart by address. The digest keeps the key short.
func consumerPath(c rotation.Sighting) string {
	return consumersOf(c.Account, c.Secret) + consumerID(c)
}

func consumerID(c rotation.Sighting) string {
	id := []string{c.AccessKeyID, c.Instance, ""}
	if c.Instance == "" {
		id[2] = c.Source
	}
	digest := sha256.Sum256([]byte(strings.Join(id, "\x00")))
	return strings.ToLower(base32.HexEncoding.EncodeToString(digest[:15]))
}

// AheadConsumers reads the records of several consumers in few round trips; [Tx.Consumer] then
// finds them.
func (tx *Tx) AheadConsumers(list []rotation.Sighting) error {
	keys := make([]string, len(list))
	for i, c := range list {
		keys[i] = consumerKind.key(consumerPath(c))
	}
	return tx.ahead(keys...)
}

// Consumer reads the record of a consumer. Its account, secret, access key and instance or address
// name it.
func (tx *Tx) Consumer(c rotation.Sighting) (rotation.Sighting, bool, error) {
	return consumerKind.load(tx, consumerPath(c))
}

// PutConsumer writes the record of a consumer. It ends with the term of the transaction.
func (tx *Tx) PutConsumer(c rotation.Sighting) error { return consumerKind.save(tx, c) }

// DeleteConsumer removes the record of a consumer.
func (tx *Tx) DeleteConsumer(c rotation.Sighting) { consumerKind.delete(tx, consumerPath(c)) }

// Consumers calls visit for each consumer of a secret until visit returns false. The consumers are
// in the order of their keys, which are opaque. Those up to the key after are left out; empty
// leaves out none.
func (tx *Tx) Consumers(account, secret, after string, visit func(key string, c rotation.Sighting) bool) error {
	under := consumersOf(account, secret)
	return consumerKind.scan(tx, under, following(under, after), func(c rotation.Sighting) bool {
		return visit(consumerID(c), c)
	})
}

// forgetConsumers removes the records of all consumers of a secret.
func (tx *Tx) forgetConsumers(account, secret string) {
	tx.ranges = append(tx.ranges, consumerKind.key(consumersOf(account, secret)))
}

// Term is a length of time at whose end the store deletes the records that were written for it.
type Term struct{ lease clientv3.LeaseID }

// NewTerm starts a term of that length, rounded down to seconds.
func (db *DB) NewTerm(ctx context.Context, length time.Duration) (Term, error) {
	lease, err := db.grant(ctx, length)
	return Term{lease}, err
}

// WithTerm attaches the term to every record that this transaction writes: the store deletes them
// when the term ends.
func (tx *Tx) WithTerm(t Term) { tx.lease = t.lease }
