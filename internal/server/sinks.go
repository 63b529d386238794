package server

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/settings"
)

// sinkKind declares a kind of audit sink. Its settings, the checks of its destination and the
// addresses that targets may not reach derive from the declaration.
type sinkKind struct {
	name    string // as the sink's Name returns
	setting string // the destination
	form    string // of the destination, in help
	help    string

	secure, plain string // schemes: with TLS anywhere, without TLS on loopback only
	must          string // completes the name of the setting in an error
	addressOnly   bool   // the destination is a scheme, a host and a port
	secret        bool   // the destination may hold a token
	token         bool   // there is a setting for a file with a bearer token

	open func(sinkSettings, *url.URL, *tls.Config) audit.Sink
}

// sinkSettings are what the operator sets for a sink.
type sinkSettings struct{ destination, caFile, tokenFile string }

// sinkKinds are the kinds of sinks. A new one is an entry here and its type in package audit.
var sinkKinds = []sinkKind{
	{
		name:        "syslog",
		setting:     "audit-syslog",
		form:        "tls://HOST:PORT",
		help:        "Syslog server that takes a copy of the audit trail; tcp:// on loopback only.",
		secure:      "tls",
		plain:       "tcp",
		must:        "must be tls://HOST:PORT, or tcp://HOST:PORT on loopback",
		addressOnly: true,
		open: func(_ sinkSettings, to *url.URL, config *tls.Config) audit.Sink {
			if config != nil {
				config.ServerName = to.Hostname()
			}
			return &audit.Syslog{Address: to.Host, TLS: config}
		},
	},
	{
		name:    "http",
		setting: "audit-http-url",
		form:    "URL",
		help:    "HTTPS endpoint that takes a copy of the audit trail; http:// on loopback only.",
		secure:  "https",
		plain:   "http",
		must:    "must be an https URL, or an http URL on loopback",
		secret:  true,
		token:   true,
		open: func(o sinkSettings, _ *url.URL, config *tls.Config) audit.Sink {
			return &audit.HTTP{URL: o.destination, TokenFile: o.tokenFile, TLS: config}
		},
	},
}

func (k sinkKind) caSetting() string    { return "audit-" + k.name + "-ca-file" }
func (k sinkKind) tokenSetting() string { return "audit-" + k.name + "-token-file" }

// rows returns the settings of the kind.
func (k sinkKind) rows(s *Settings) settings.Table {
	o := &sinkSettings{}
	s.sinks[k.name] = o
	destination := settings.Of(k.setting, &o.destination, settings.Text(k.form), "", k.help)
	if k.secret {
		destination.Secret()
	}
	rows := settings.Table{destination}
	if k.token {
		rows = append(rows, settings.Of(k.tokenSetting(), &o.tokenFile, settings.Text("FILE"), "",
			"File with a bearer token for that endpoint.").For(k.setting))
	}
	return append(rows, settings.Of(k.caSetting(), &o.caFile, settings.Text("FILE"), "",
		"CA certificate that verifies the "+k.name+" sink, PEM.").Shown("the machine's own").For(k.setting))
}

// openSinks returns a sink for every kind that has a destination.
func (s *Settings) openSinks() ([]audit.Sink, error) {
	var sinks []audit.Sink
	var errs []error
	for _, k := range sinkKinds {
		o := *s.sinks[k.name]
		if o.destination == "" {
			continue
		}
		sink, err := s.openSink(k, o)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sinks = append(sinks, sink)
	}
	return sinks, errors.Join(errs...)
}

func (s *Settings) openSink(k sinkKind, o sinkSettings) (audit.Sink, error) {
	u, err := url.Parse(o.destination)
	switch {
	case err != nil || u.Host == "":
		return nil, k.refuse(o.destination)
	case k.addressOnly && (u.Port() == "" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != ""):
		return nil, k.refuse(o.destination)
	case u.Scheme == k.plain && o.caFile != "":
		return nil, fmt.Errorf("%s is for %s with %s://", k.caSetting(), k.setting, k.secure)
	case u.Scheme != k.secure && !(u.Scheme == k.plain && egress.IsLoopback(u.Hostname())):
		return nil, k.refuse(o.destination)
	}
	if o.tokenFile != "" {
		if _, err := s.readSecret(o.tokenFile); err != nil {
			return nil, fmt.Errorf("%s: %w", k.tokenSetting(), err)
		}
	}
	if u.Scheme == k.plain {
		return k.open(o, u, nil), nil
	}
	config, err := trusting(k.caSetting(), o.caFile)
	if err != nil {
		return nil, err
	}
	return k.open(o, u, config), nil
}

// refuse repeats what was given, unless it may hold a password or a token.
func (k sinkKind) refuse(destination string) error {
	switch {
	case k.secret:
		return fmt.Errorf("%s %s", k.setting, k.must)
	case strings.Contains(destination, "@"):
		return fmt.Errorf("%s %s, without a user", k.setting, k.must)
	}
	return fmt.Errorf("%s %s, not %q", k.setting, k.must, destination)
}
