// Package consumer reads secrets for an application and keeps them fresh. After the first read of a
// secret a further one takes nanoseconds and uses no network. A change arrives by push, usually in
// well under a second. An application that has a value keeps it while the server is unavailable.
//
//	client, err := consumer.NewClient(kms.Config{Endpoint: endpoint, Credentials: credentials})
//	c, err := consumer.New(ctx, consumer.Config{Client: client, Secrets: []string{"app/db"}})
//	defer c.Close()
//	s, err := c.Get(ctx, "app/db")
//	password, err := s.Member("password")
//
// It works with any endpoint that implements the API. If the endpoint has WatchSecrets, as Keyturn
// does, one long poll watches up to 500 secrets. Otherwise, as with the cloud service, each secret
// is read at intervals.
//
// # Guarantees
//
//   - A failure never takes away a value that was read. Without [Config.MaxStale] the value is
//     served at any age, with a warning in the log and a count in [Counters.StaleReads]. Past
//     MaxStale, [Consumer.Get] returns [ErrExpired].
//   - A value is taken away only if the server answers that the secret does not exist, or that this
//     caller may not read it, and only if a second read some seconds later gets the same answer.
//     Any other error counts as "unavailable".
//   - The load on the server is bounded. At most one read of a secret is in progress. After
//     failures the consumer backs off with full jitter, from one second up to the interval, and
//     respects Retry-After. Many consumers do not return at the same moment.
//   - Values are written nowhere, unless [Config.LastGood] names a directory, where they are
//     encrypted.
//
// # Other packages
//
// The packages below this one open connections with a secret, one package for each kind of client.
// They use [Consumer.Login], [Consumer.Failed] and [Consumer.Hold]. The command keyturn agent does
// the same work for other languages.
package consumer
