package consumer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
)

const (
	defaultInterval = 5 * time.Minute
	minInterval     = time.Second
	minMaxStale     = 10 * time.Second
	maxName         = 192
	maxInstance     = 64
)

// API is the part of a client that a [Consumer] uses. [kms.Client] implements it. A call must
// return when its context ends.
type API interface {
	GetSecretValue(ctx context.Context, in *kms.GetSecretValueRequest) (*kms.GetSecretValueResponse, error)
	WatchSecrets(ctx context.Context, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error)
}

// Config says which secrets to read, and how. Only Client is required.
type Config struct {
	// Client calls the endpoint; [NewClient] returns a suitable one. It must not retry, because the
	// Consumer does: both together multiply the load on a server in trouble. Its timeout must be
	// longer than 25 seconds, the length of a long poll.
	Client API
	// Secrets are names or ARNs that the Consumer reads from its start. It reads any other secret
	// from the first [Consumer.Get] of its name.
	Secrets []string
	// Interval is the time between two reads of a value while push does not work. Each time is
	// drawn between one half and the whole of it. At least one second; 0 means 5 minutes, or a
	// third of MaxStale if that is less. A value that is a JSON object with a member "ttl", in
	// milliseconds, sets its own interval, of up to 24 hours.
	Interval time.Duration
	// MaxStale is how long a value is served after the server last confirmed it: at least 10
	// seconds, and twice the interval. 0 means without limit: the application then survives an
	// outage of any length, but does not notice during it that its permission was withdrawn.
	MaxStale time.Duration
	// Instance names this process to the server, which lists which consumer holds which version.
	// It must be 1 to 64 of A-Z a-z 0-9 _ / + = . @ -. Empty means the host name, the process ID
	// and a random suffix.
	Instance string
	// LastGood keeps the values on disk, encrypted, so that the application can start while the
	// server is unavailable. If nil, nothing is written.
	LastGood *LastGood
	// LoginLimit is how many logins with one secret a target may reject in one minute, over
	// [Consumer.Login] and [Consumer.Failed]. Login runs at most half as many at the same time. 0
	// means 10. Keep it below the number of rejections that lock an account, divided by the number
	// of instances.
	LoginLimit int
	// NoPush turns long polls off.
	NoPush bool
	// Logger receives warnings, which never contain a value. nil means [slog.Default].
	Logger *slog.Logger
}

// The errors of [Consumer.Get]. An error of the server stays in their chain, for [errors.Is] and
// [errors.As].
var (
	// ErrExpired says that the value was not confirmed for longer than [Config.MaxStale].
	ErrExpired = errors.New("the value is older than MaxStale allows")
	// ErrAbsent says that the secret does not exist, or is scheduled for deletion.
	ErrAbsent = errors.New("there is no such secret")
	// ErrDenied says that the caller may not read the secret.
	ErrDenied = errors.New("reading it is not allowed")
	// ErrUnavailable says that there is no value yet, because no read has succeeded.
	ErrUnavailable = errors.New("no value could be read yet")
	// ErrClosed says that the [Consumer] was closed.
	ErrClosed = errors.New("the consumer is closed")
)

// complete checks the configuration and fills in the defaults.
func (c *Config) complete() error {
	var problems []error
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("consumer: "+format, args...))
	}
	if c.Client == nil {
		complain("Client is missing; NewClient makes one")
	}
	if c.MaxStale != 0 && c.MaxStale < minMaxStale {
		complain("MaxStale is %v; it must be 0 for no bound, or at least %v", c.MaxStale, minMaxStale)
	}
	switch {
	case c.Interval == 0 && c.MaxStale > 0:
		c.Interval = min(defaultInterval, c.MaxStale/3)
	case c.Interval == 0:
		c.Interval = defaultInterval
	case c.Interval < minInterval:
		complain("Interval is %v; it must be at least %v", c.Interval, minInterval)
	case c.MaxStale >= minMaxStale && c.Interval > c.MaxStale/2:
		complain("Interval is %v and MaxStale %v: a value would expire between two reads; "+
			"make Interval at most half of MaxStale", c.Interval, c.MaxStale)
	}
	if c.LoginLimit < 0 {
		complain("LoginLimit is %d; it must be 0 for %d, or more", c.LoginLimit, defaultLoginLimit)
	} else if c.LoginLimit == 0 {
		c.LoginLimit = defaultLoginLimit
	}
	if c.Instance == "" {
		c.Instance = newInstance()
	} else if len(c.Instance) > maxInstance || strings.ContainsFunc(c.Instance, notInName) {
		complain("Instance must be 1 to %d of A-Z a-z 0-9 _ / + = . @ -", maxInstance)
	}
	for _, name := range c.Secrets {
		if err := checkName(name); err != nil {
			problems = append(problems, err)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return errors.Join(problems...)
}

func notInName(r rune) bool {
	return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_/+=.@-", r)
}

// newInstance returns a name for this process. Its random suffix is needed because containers share
// host names and process IDs.
func newInstance() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	host = strings.Map(func(r rune) rune {
		if notInName(r) {
			return '-'
		}
		return r
	}, host)
	return fmt.Sprintf("%.40s-%d-%.8s", host, os.Getpid(), rand.Text())
}

func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("consumer: the name of a secret must have 1 to %d characters, not %d", maxName, len(name))
	}
	return nil
}
