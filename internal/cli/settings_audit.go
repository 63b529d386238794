package cli

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/server"
)

// leastTrailAge keeps a mistyped duration from emptying the trail.
const leastTrailAge = 24 * time.Hour

// audit reads the settings of the audit trail.
func (s settings) audit(c *server.Config) error {
	var errs []error
	c.AuditDir, c.AuditStrict = s.text("audit-dir", ""), s.k.Bool("audit-strict")
	c.AuditKeep.Compress = !s.k.Exists("audit-compress") || s.k.Bool("audit-compress")
	if text := s.text("audit-max-age", ""); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d < leastTrailAge {
			errs = append(errs, fmt.Errorf("audit-max-age %q is not a duration of at least %s, such as 8760h", text, leastTrailAge))
		}
		c.AuditKeep.MaxAge = d
	}
	if s.k.Exists("audit-max-size") {
		if c.AuditKeep.MaxBytes = int64(s.k.Int("audit-max-size")) << 20; c.AuditKeep.MaxBytes < 256<<20 {
			errs = append(errs, errors.New("audit-max-size must be at least 256: a file of the trail has 64 MiB"))
		}
	}
	if s.k.Exists("audit-disk-alert") {
		if c.AuditDiskAlert = s.k.Int("audit-disk-alert"); c.AuditDiskAlert == 0 {
			c.AuditDiskAlert = -1
		} else if c.AuditDiskAlert < 0 {
			errs = append(errs, errors.New("audit-disk-alert must not be negative"))
		}
	}
	sinks, err := s.sinks()
	c.AuditSinks = sinks
	return errors.Join(append(errs, err)...)
}

func (s settings) sinks() ([]audit.Sink, error) {
	var sinks []audit.Sink
	var errs []error
	if text := s.text("audit-syslog", ""); text != "" {
		sink, err := s.syslog(text)
		sinks, errs = append(sinks, sink), append(errs, err)
	} else if s.k.Exists("audit-syslog-ca-file") {
		errs = append(errs, errors.New("audit-syslog-ca-file is for audit-syslog, which is not set"))
	}
	if text := s.text("audit-http-url", ""); text != "" {
		sink, err := s.httpSink(text)
		sinks, errs = append(sinks, sink), append(errs, err)
	} else {
		for _, key := range []string{"audit-http-token-file", "audit-http-ca-file"} {
			if s.k.Exists(key) {
				errs = append(errs, fmt.Errorf("%s is for audit-http-url, which is not set", key))
			}
		}
	}
	return sinks, errors.Join(errs...)
}

// errSyslog repeats what was given, unless it may hold a password.
func errSyslog(text string) error {
	const must = "audit-syslog must be tls://HOST:PORT, or tcp://HOST:PORT on loopback"
	if strings.Contains(text, "@") {
		return errors.New(must + ", without a user")
	}
	return fmt.Errorf("%s, not %q", must, text)
}

func (s settings) syslog(text string) (audit.Sink, error) {
	u, err := url.Parse(text)
	if err != nil || u.Port() == "" || u.Hostname() == "" || u.User != nil || u.Path != "" || u.RawQuery != "" {
		return nil, errSyslog(text)
	}
	ca := s.text("audit-syslog-ca-file", "")
	switch {
	case u.Scheme == "tcp" && ca != "":
		return nil, errors.New("audit-syslog-ca-file is for audit-syslog with tls://")
	case u.Scheme == "tcp" && egress.IsLoopback(u.Hostname()):
		return &audit.Syslog{Address: u.Host}, nil
	case u.Scheme != "tls":
		return nil, errSyslog(text)
	}
	config, err := trusting("audit-syslog-ca-file", ca)
	if err != nil {
		return nil, err
	}
	config.ServerName, _, _ = net.SplitHostPort(u.Host)
	return &audit.Syslog{Address: u.Host, TLS: config}, nil
}

func (s settings) httpSink(text string) (audit.Sink, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && egress.IsLoopback(u.Hostname())) {
		return nil, errors.New("audit-http-url must be an https URL, or an http URL on loopback")
	}
	sink := &audit.HTTP{URL: text, TokenFile: s.text("audit-http-token-file", "")}
	if sink.TokenFile != "" {
		if _, err := s.readSecret(sink.TokenFile); err != nil {
			return nil, fmt.Errorf("audit-http-token-file: %w", err)
		}
	}
	if ca := s.text("audit-http-ca-file", ""); ca != "" {
		if sink.TLS, err = trusting("audit-http-ca-file", ca); err != nil {
			return nil, err
		}
	}
	return sink, nil
}

// trusting is a client configuration that trusts the authorities in a file; those of the machine
// when there is none.
func trusting(setting, file string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file == "" {
		return config, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no PEM certificate", setting, file)
	}
	return config, nil
}
