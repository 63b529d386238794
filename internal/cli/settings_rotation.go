package cli

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/sensitive"
)

// minEventKey is the least length of a key that signs events.
const minEventKey = 16

// duration reads a setting into a field, which stays as it is when the setting is absent.
func (s settings) duration(key string, least, most time.Duration, into *time.Duration) error {
	if !s.k.Exists(key) {
		return nil
	}
	d, err := time.ParseDuration(s.k.String(key))
	if err != nil || d < least || d > most {
		return fmt.Errorf("%s %q is not a duration of %s to %s, such as 90m", key, s.k.String(key), least, most)
	}
	*into = d
	return nil
}

// rotation reads the settings of the rotation engine.
func (s settings) rotation(c *server.Config) error {
	var errs []error
	duration := func(key string, least, most time.Duration, into *time.Duration) {
		errs = append(errs, s.duration(key, least, most, into))
	}
	duration("rotation-grace", time.Second, 365*24*time.Hour, &c.Rotation.Grace)
	duration("rotation-grace-limit", time.Second, 365*24*time.Hour, &c.Rotation.GraceLimit)
	duration("rotation-least-interval", time.Second, 365*24*time.Hour, &c.Rotation.LeastInterval)
	duration("rotation-request-interval", time.Second, 24*time.Hour, &c.Rotation.RequestEvery)
	duration("rotation-probe", time.Second, 30*24*time.Hour, &c.Rotation.ProbeEvery)
	duration("rotation-hold", 10*time.Millisecond, 8*time.Second, &c.Rotation.Hold)
	if s.k.Exists("rotation-rate") {
		if c.Rotator.Rate = s.k.Float64("rotation-rate"); c.Rotator.Rate < 0.001 || c.Rotator.Rate > 1000 {
			errs = append(errs, errors.New("rotation-rate must be 0.001 to 1000"))
		}
	}
	receivers, err := s.receivers()
	c.Rotator.Receivers = receivers
	return errors.Join(append(errs, err)...)
}

// egress reads what targets and receivers may be connected to.
func (s settings) egress(c *egress.Config) error {
	var errs []error
	rules := func(key string) (list []egress.Rule) {
		for _, text := range s.k.Strings(key) {
			r, err := egress.ParseRule(text)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", key, err))
				continue
			}
			list = append(list, r)
		}
		return list
	}
	c.Allow, c.Deny = rules("egress-allow"), rules("egress-deny")
	return errors.Join(errs...)
}

// receivers reads which endpoints receive events.
func (s settings) receivers() ([]rotator.Receiver, error) {
	var errs []error
	var key sensitive.Value
	urls := s.k.Strings("event-url")
	if path := s.text("event-key-file", ""); path != "" {
		text, err := s.readSecret(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("event-key-file: %w", err))
		} else if key = sensitive.New(strings.TrimRight(string(text), "\r\n")); key.Len() < minEventKey {
			errs = append(errs, fmt.Errorf("event-key-file: %s holds a key of less than %d characters", path, minEventKey))
		}
		if len(urls) == 0 {
			errs = append(errs, errors.New("event-key-file is for event-url, which is not set"))
		}
	}
	var list []rotator.Receiver
	for i, text := range urls {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && egress.IsLoopback(u.Hostname())) {
			errs = append(errs, fmt.Errorf("event-url, the one at place %d, is not an https URL, or an http URL on loopback", i+1))
			continue
		}
		list = append(list, rotator.Receiver{URL: text, Key: key})
	}
	return list, errors.Join(errs...)
}
