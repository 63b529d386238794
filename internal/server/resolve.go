package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/rotator"
	"github.com/keyturn/keyturn/sensitive"
)

// minEventKey is the least length of a key that signs events.
const minEventKey = 16

// Resolve makes the configuration of what the settings name: it reads files and checks addresses.
// It reports every mistake at once, including what [Config.Check] finds. It leaves the kinds of
// targets and the logger to the caller.
func (s *Settings) Resolve() error {
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	var err error
	s.Rotator.Receivers, err = s.receivers()
	add(err)
	s.AuditSinks, err = s.openSinks()
	add(err)
	s.RootKey, err = s.rootKey()
	add(err)
	add(s.resolveEtcd())
	add(s.resolveCluster())
	return errors.Join(append(errs, s.Config.Check())...)
}

// readSecret reads a file that no other user may read or write.
func (s *Settings) readSecret(path string) ([]byte, error) {
	if err := s.Trust.CheckSecret(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func (s *Settings) rootKey() (root.Provider, error) {
	switch path, variable := s.rootKeyFile, s.rootKeyEnv; {
	case path != "" && variable != "":
		return nil, errors.New("root-key-file and root-key-env exclude each other: set one of them")
	case path != "":
		return root.File{Path: path, Trust: s.Trust}, nil
	case variable != "":
		return root.Env{Variable: variable}, nil
	}
	return nil, nil
}

// resolveCluster makes the members of a cluster of embedded stores.
func (s *Settings) resolveCluster() error {
	if len(s.clusterPeers) == 0 {
		return nil
	}
	var errs []error
	peers := map[string]string{}
	for _, pair := range s.clusterPeers {
		name, address, ok := strings.Cut(pair, "=")
		if _, twice := peers[name]; !ok || twice {
			errs = append(errs, fmt.Errorf("cluster-peers: %q is not NAME=https://HOST:PORT with a name of its own", pair))
		}
		peers[name] = address
	}
	cluster := s.member
	cluster.Peers = peers
	s.Cluster = &cluster
	return errors.Join(errs...)
}

// resolveEtcd reads the files that are needed to reach an etcd cluster.
func (s *Settings) resolveEtcd() error {
	if len(s.Etcd.Endpoints) == 0 {
		return nil
	}
	var errs []error
	if path := s.etcdPasswordFile; path != "" {
		password, err := s.readSecret(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("etcd-password-file: %w", err))
		}
		s.Etcd.Password = strings.TrimRight(string(password), "\r\n")
	}
	var err error
	if s.Etcd.TLS, err = s.etcdTLS(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Settings) etcdTLS() (*tls.Config, error) {
	ca, cert, key := s.etcdCAFile, s.etcdCertFile, s.etcdKeyFile
	if !slices.ContainsFunc(s.Etcd.Endpoints, func(e string) bool { return strings.HasPrefix(e, "https://") }) {
		if ca+cert+key != "" {
			return nil, errors.New("etcd-ca-file, etcd-cert-file and etcd-key-file need endpoints that begin with https://")
		}
		return nil, nil
	}
	if ca != "" {
		if err := s.Trust.CheckFile(ca); err != nil {
			return nil, fmt.Errorf("etcd-ca-file: %w", err)
		}
	}
	config, err := trusting("etcd-ca-file", ca)
	if err != nil {
		return nil, err
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("etcd-cert-file and etcd-key-file go together: set both or neither")
	}
	if cert != "" {
		if err := s.Trust.CheckSecret(key); err != nil {
			return nil, fmt.Errorf("etcd-key-file: %w", err)
		}
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("etcd-cert-file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// trusting returns a client configuration that trusts the authorities in a file, or the machine's
// own if there is none. The setting is named in errors.
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

// receivers returns the endpoints that receive events.
func (s *Settings) receivers() ([]rotator.Receiver, error) {
	var errs []error
	var key sensitive.Value
	if path := s.eventKeyFile; path != "" {
		text, err := s.readSecret(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("event-key-file: %w", err))
		} else if key = sensitive.New(strings.TrimRight(string(text), "\r\n")); key.Len() < minEventKey {
			errs = append(errs, fmt.Errorf(
				"event-key-file: %s holds a key of less than %d characters", path, minEventKey))
		}
	}
	var list []rotator.Receiver
	for i, text := range s.eventURLs {
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && egress.IsLoopback(u.Hostname())) {
			errs = append(errs, fmt.Errorf(
				"event-url, the one at place %d, is not an https URL, or an http URL on loopback", i+1))
			continue
		}
		list = append(list, rotator.Receiver{URL: text, Key: key})
	}
	return list, errors.Join(errs...)
}
