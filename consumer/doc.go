// Package consumer reads secrets for an application and keeps them fresh: a read costs nanoseconds
// and touches no network after the first, a change arrives by push in well under a second, and an
// application that has a value goes on with it while the server is away.
//
//	client, err := consumer.NewClient(kms.Config{Endpoint: "keyturn.example.com", Credentials: credentials})
//	c, err := consumer.New(ctx, consumer.Config{Client: client, Secrets: []string{"app/db"}})
//	defer c.Close()
//	s, err := c.Get(ctx, "app/db")
//	password, err := s.Member("password")
//
// It works with any endpoint that speaks the API. One that has WatchSecrets, as Keyturn has, is
// asked by one long poll for all secrets; one that has not, such as the cloud's own, is polled for
// each secret.
//
// # What is promised
//
//   - A value that was read is never lost by a failure. Unless Config.MaxStale sets a bound it is
//     served however old it is, with a warning in the log and Counters.StaleReads. Past the bound
//     Get answers ErrExpired.
//   - Only an answer about the secret itself, that it is not there or that this caller may not read
//     it, takes a value away, and only when a second read some seconds later says so again. All
//     other errors mean "unavailable".
//   - The server is not hammered: at most one read of a secret is under way, failures back off with
//     full jitter from one second up to the interval, what the server asks by Retry-After is kept,
//     and many consumers do not return at once.
//   - Values are written nowhere, unless Config.LastGood names a directory; there they are sealed.
//
// # What is left to others
//
// Opening connections with a value is the work of the packages below this one, one for each kind of
// client; they use Login, Failed and Hold. The command keyturn agent does for other languages what
// this package does for Go.
package consumer
