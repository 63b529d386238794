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

func consumersPrefix(account, secret string) string {
	return "consumer/" + account + "/" + secret + ":"
}

// consumerKey is the key of a consumer's record. An instance is one wherever it calls from; who has no name is told apart by
// the address.
func consumerKey(c rotation.Consumer) string {
	id := []string{c.AccessKeyID, c.Instance, ""}
	if c.Instance == "" {
		id[2] = c.Source
	}
	digest := sha256.Sum256([]byte(strings.Join(id, "\x00")))
	return consumersPrefix(c.Account, c.Secret) + strings.ToLower(base32.HexEncoding.EncodeToString(digest[:15]))
}

// AheadConsumers reads the records of several consumers in few round trips; Consumer then finds them.
func (tx *Tx) AheadConsumers(list []rotation.Consumer) error {
	keys := make([]string, len(list))
	for i, c := range list {
		keys[i] = consumerKey(c)
	}
	return tx.ahead(keys...)
}

// Consumer reads what is known of a consumer, which is named by its account, secret, access key and instance or address.
func (tx *Tx) Consumer(c rotation.Consumer) (rotation.Consumer, bool, error) {
	return load[rotation.Consumer](tx, consumerKey(c))
}

// PutConsumer writes what is known of a consumer. It ends with the lease of the transaction.
func (tx *Tx) PutConsumer(c rotation.Consumer) error { return save(tx, consumerKey(c), c) }

// DeleteConsumer forgets a consumer.
func (tx *Tx) DeleteConsumer(c rotation.Consumer) { tx.write(consumerKey(c), nil) }

// Consumers calls visit for each consumer of a secret in the order of their keys, which follow the key after (opaque, empty for
// the first), until visit returns false.
func (tx *Tx) Consumers(account, secret, after string, visit func(key string, c rotation.Consumer) bool) error {
	prefix := consumersPrefix(account, secret)
	start := prefix
	if after != "" {
		start = prefix + after + "\x00"
	}
	return scan(tx, start, clientv3.GetPrefixRangeEnd(prefix), func(c rotation.Consumer) bool {
		return visit(strings.TrimPrefix(consumerKey(c), prefix), c)
	})
}

// forgetConsumers removes what is known of the consumers of a secret.
func (tx *Tx) forgetConsumers(account, secret string) {
	tx.ranges = append(tx.ranges, consumersPrefix(account, secret))
}

// Term is a time after which the store forgets what was written for it by itself.
type Term struct{ lease clientv3.LeaseID }

// Begin begins a term of that length, in seconds at the least.
func (db *DB) Begin(ctx context.Context, length time.Duration) (Term, error) {
	lease, err := db.grant(ctx, length)
	return Term{lease}, err
}

// For makes what this transaction writes end with the term.
func (tx *Tx) For(t Term) { tx.lease = t.lease }
