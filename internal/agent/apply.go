package agent

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"reflect"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/ownfile"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// reload reads the file, and puts it in force when it is right and can be. When it is not,
// everything stays as it is. again is when to try once more without a change; zero means never.
func (a *agent) reload(ctx context.Context) (again time.Time) {
	for path := range a.read { // a mistake is reported once, and checked again after a change
		a.read[path] = digestOf(path)
	}
	s, err := load(a.options.Path)
	if err == nil {
		if err = a.apply(ctx, s); err != nil {
			again = time.Now().Add(retryApply)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trouble = ""
	if err != nil {
		a.trouble = err.Error()
		a.log.Error("the configuration is not put in force; the one before stays", "file", a.options.Path, "err", err)
		return again
	}
	a.log.Info("configuration put in force", "file", a.options.Path)
	return time.Time{}
}

// apply puts a configuration in force, as a whole or not at all.
func (a *agent) apply(ctx context.Context, s *setup) error {
	digests := map[string][32]byte{}
	for _, path := range s.read {
		digests[path] = digestOf(path)
	}
	next, id, fresh, err := a.backend(ctx, s)
	if err != nil {
		return err
	}
	abandon := func(err error) error {
		if fresh {
			_ = next.consumer.Close()
		}
		return err
	}
	handlers, keys, cert, err := a.handlers(s)
	if err != nil {
		return abandon(err)
	}
	opened, err := a.open(s)
	if err != nil {
		return abandon(err)
	}
	old := a.source.state.Swap(next)
	a.keys.Store(&keys)
	a.identity, a.read = id, digests
	a.swapListeners(s, opened, handlers, cert)
	a.swapWriters(s)
	a.adopt(s)
	if fresh {
		a.subscribe(next.consumer)
		if old != nil {
			return old.consumer.Close()
		}
	}
	return nil
}

// adopt notes the configuration that is in force from now on, and logs what the operator should
// check.
func (a *agent) adopt(s *setup) {
	a.mu.Lock()
	if a.setup != nil && a.setup.Log != s.Log {
		a.log.Warn("the settings of the log take effect when the agent is started again")
	}
	a.setup, a.loadedAt = s, time.Now()
	a.mu.Unlock()
	for _, w := range s.warnings {
		a.log.Warn("check the configuration", "warning", w)
	}
}

func (a *agent) subscribe(c *consumer.Consumer) {
	if a.stopTold != nil {
		a.stopTold()
	}
	told, stop := c.Changes()
	a.stopTold = stop
	select {
	case <-a.rearm: // one that was not taken yet
	default:
	}
	a.rearm <- told
}

// backend returns the consumer for a configuration: the one that runs, if it is the same. A new one
// takes over once it has every value that the old one holds: a change of configuration loses none.
func (a *agent) backend(ctx context.Context, s *setup) (next *backend, id identity, fresh bool, err error) {
	credentials, err := s.AccessKey.read()
	if err != nil {
		return nil, id, false, fmt.Errorf("access_key: %w", err)
	}
	if id, err = s.identify(credentials); err != nil {
		return nil, id, false, err
	}
	old := a.source.state.Load()
	if old != nil && id == a.identity {
		return &backend{old.consumer, old.client, s.secrets, s.anySecret()}, id, false, nil
	}
	next, err = s.newBackend(ctx, credentials, id.ca, a.options.UserAgent, a.log)
	if err != nil || old == nil {
		return next, id, true, err
	}
	ctx, cancel := context.WithTimeout(ctx, takeOver)
	defer cancel()
	for _, name := range s.secrets {
		if _, err := old.consumer.Get(ctx, name); err != nil {
			continue
		}
		if _, err := next.consumer.Get(ctx, name); err != nil {
			return nil, id, false, errors.Join(fmt.Errorf("with this configuration a value would be lost: %w", err),
				next.consumer.Close())
		}
	}
	return next, id, true, nil
}

func (s *setup) anySecret() bool { return s.KMS != nil && s.KMS.AnySecret }

func (s *setup) identify(c sign.Credentials) (identity, error) {
	id := identity{endpoint: s.Endpoint, instance: s.Instance, interval: s.Interval, maxStale: s.MaxStale}
	if s.LastGood != nil {
		id.lastGood = *s.LastGood
	}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return id, fmt.Errorf("ca_file: %w", err)
		}
		id.ca = string(pem)
	}
	digest := sha256.Sum256(
		[]byte(c.AccessKeyID + "\x00" + c.AccessKeySecret.Reveal() + "\x00" + c.SecurityToken.Reveal()))
	id.key = hex.EncodeToString(digest[:])
	return id, nil
}

func (s *setup) newBackend(
	ctx context.Context, credentials sign.Credentials, ca, userAgent string, log *slog.Logger,
) (*backend, error) {
	config := kms.Config{Endpoint: s.Endpoint, Credentials: credentials, UserAgent: userAgent}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM([]byte(ca))
	}
	client, err := consumer.NewClient(config)
	if err != nil {
		return nil, err
	}
	config.MaxAttempts = 2 // a connection that was kept open may have gone
	through, err := consumer.NewClient(config)
	if err != nil {
		return nil, err
	}
	c, err := consumer.New(ctx, consumer.Config{
		Client:   client,
		Secrets:  s.secrets,
		Interval: s.Interval,
		MaxStale: s.MaxStale,
		Instance: s.Instance,
		LastGood: s.LastGood.open(),
		Logger:   log,
	})
	if err != nil {
		return nil, err
	}
	return &backend{c, through, s.secrets, s.anySecret()}, nil
}

// handlers makes what is served, and reads what that needs.
func (a *agent) handlers(s *setup) (map[string]http.Handler, localKeys, *tls.Certificate, error) {
	handlers := map[string]http.Handler{}
	if s.HTTP != nil {
		t, err := readToken(s.HTTP.TokenFile)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("http: %w", err)
		}
		handlers["http"] = program(&a.source, t)
	}
	if s.Status != nil {
		handlers["status"] = a.page(s.Status.AllowAnyAddress)
	}
	if s.KMS == nil {
		return handlers, nil, nil, nil
	}
	handlers["kms"] = signed(a.options.Door(a.gate, a.auth, a.log))
	sources := s.KMS.AccessKeys
	if len(sources) == 0 {
		sources = []KeySource{s.AccessKey}
	}
	var keys []sign.Credentials
	for _, source := range sources {
		key, err := source.read()
		if err != nil {
			return nil, nil, nil, fmt.Errorf("kms: access_keys: %w", err)
		}
		keys = append(keys, key)
	}
	if s.KMS.CertFile == "" {
		return handlers, newLocalKeys(keys), nil, nil
	}
	if err := ownfile.CheckSecret(s.KMS.KeyFile); err != nil {
		return nil, nil, nil, fmt.Errorf("kms: key_file: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(s.KMS.CertFile, s.KMS.KeyFile)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("kms: cert_file: %w", err)
	}
	return handlers, newLocalKeys(keys), &cert, nil
}

// places are where a configuration wants things served, by role.
func (s *setup) places() map[string]place {
	out := map[string]place{}
	if h := s.HTTP; h != nil && h.Socket != "" {
		out["http"] = place{role: "http", network: "unix", address: h.Socket}
	} else if h != nil {
		out["http"] = place{role: "http", network: "tcp", address: h.Listen}
	}
	if s.KMS != nil {
		out["kms"] = place{role: "kms", network: "tcp", address: s.KMS.Listen, secure: s.KMS.CertFile != ""}
	}
	if s.Status != nil {
		out["status"] = place{role: "status", network: "tcp", address: s.Status.Listen}
	}
	return out
}

// open opens the listeners that a configuration needs and that are not there: all of them, or none.
func (a *agent) open(s *setup) (map[string]*listener, error) {
	opened := map[string]*listener{}
	for role, p := range s.places() {
		if l := a.listeners[role]; l != nil && l.place == p {
			continue
		}
		l, err := a.openOne(s, p)
		if err != nil {
			for _, l := range opened {
				l.close()
			}
			return nil, err
		}
		opened[role] = l
	}
	return opened, nil
}

func (a *agent) openOne(s *setup, p place) (*listener, error) {
	if l := a.listeners[p.role]; l != nil && l.network == p.network && l.address == p.address {
		return nil, fmt.Errorf("%s: turning TLS on or off at one address takes a restart", p.role)
	}
	return open(p, s.socketMode(), a.log)
}

// socketMode is the mode of the Unix socket; it means nothing without one.
func (s *setup) socketMode() fs.FileMode {
	if s.HTTP == nil {
		return 0
	}
	mode, _ := parseMode(s.HTTP.SocketMode) // checked when the file was read
	return mode
}

func (a *agent) swapListeners(
	s *setup, opened map[string]*listener, handlers map[string]http.Handler, cert *tls.Certificate,
) {
	wanted := s.places()
	var leaving []*listener
	a.mu.Lock()
	for role, l := range a.listeners {
		if wanted[role] != l.place {
			leaving = append(leaving, l)
			delete(a.listeners, role)
		}
	}
	maps.Copy(a.listeners, opened)
	for role, l := range a.listeners {
		l.certificate.Store(cert)
		l.serve(handlers[role])
		if l.socket != nil {
			if err := l.socket.chmod(s.socketMode()); err != nil {
				a.log.Error("mode of the socket not set", "err", err)
			}
		}
	}
	a.mu.Unlock()
	for _, l := range leaving {
		l.close()
	}
}

// swapWriters lets writers of files that stay as they are go on, and replaces the others.
func (a *agent) swapWriters(s *setup) {
	wanted := map[string]*rendered{}
	for _, r := range s.files {
		wanted[r.Path] = r
	}
	a.mu.Lock()
	var leaving []*runningWriter
	for path, k := range a.writers {
		if r := wanted[path]; r != nil && k.rendered.same(r) {
			delete(wanted, path)
			continue
		}
		leaving = append(leaving, k)
		delete(a.writers, path)
	}
	a.mu.Unlock()
	pending := map[string]bool{}
	for _, k := range leaving {
		k.stop()
		<-k.done
		pending[k.Path] = k.Status().Pending
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for path, r := range wanted {
		k := newFileWriter(r, &a.source, a.log)
		k.status.Pending = pending[path] && r.notify != nil // a pending notification stays pending
		ctx, stop := context.WithCancel(context.Background())
		t := &runningWriter{fileWriter: k, stop: stop, done: make(chan struct{})}
		a.writers[path] = t
		go func() {
			defer close(t.done)
			t.run(ctx)
		}()
	}
}

func (r *rendered) same(o *rendered) bool {
	return reflect.DeepEqual(r.File, o.File) && r.source.text == o.source.text && r.uid == o.uid && r.gid == o.gid
}
