package agent

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/wire"
)

func (s *setup) check(m *mistakes) {
	s.checkEndpoint(m)
	s.AccessKey.check("access_key", m)
	s.readFile("ca_file", s.CAFile, m)
	if s.CAFile != "" {
		if pem, err := os.ReadFile(s.CAFile); err == nil && !x509.NewCertPool().AppendCertsFromPEM(pem) {
			m.add("ca_file", "%s holds no PEM certificate", s.CAFile)
		}
	}
	if s.AccessKey.File != "" {
		s.read = append(s.read, s.AccessKey.File)
	}
	if s.Instance != "" && (!wire.IsName(s.Instance) || len(s.Instance) > 64) {
		m.add("instance", "must be 1 to 64 of A-Z a-z 0-9 _ / + = . @ -")
	}
	for i, name := range s.Secrets {
		checkSecretName(fmt.Sprintf("secrets[%d]", i), name, m)
	}
	s.checkTimes(m)
	s.secrets = slices.Clone(s.Secrets)
	s.checkFiles(m)
	slices.Sort(s.secrets)
	s.secrets = slices.Compact(s.secrets)
	s.checkLastGood(m)
	s.checkListeners(m)
	s.checkLog(m)
	if len(s.secrets) == 0 && s.KMS == nil && len(m.list) == 0 {
		m.add("secrets", "there is nothing to do: name secrets, or files whose templates name them, or set kms")
	}
	if len(s.secrets) == 0 && s.KMS != nil && !s.KMS.AnySecret {
		m.add("secrets", "kms serves the secrets that are named here or in templates, and none is; kms.any_secret serves "+
			"all that the access key may read")
	}
}

// checkTimes holds the times to what a consumer takes.
func (s *setup) checkTimes(m *mistakes) {
	const leastInterval, leastStale = time.Second, 10 * time.Second
	switch {
	case s.Interval != 0 && s.Interval < leastInterval:
		m.add("interval", "must be at least %s", leastInterval)
	case s.MaxStale != 0 && s.MaxStale < leastStale:
		m.add("max_stale", "must be at least %s", leastStale)
	case s.MaxStale != 0 && s.Interval > s.MaxStale/2:
		m.add("interval", "must be at most half of max_stale, or a value would expire between two reads")
	}
}

func checkSecretName(path, name string, m *mistakes) {
	if (len(name) > 192 || !wire.IsName(name)) && !strings.HasPrefix(name, "acs:kms:") {
		m.add(path, "is not the name of a secret: 1 to 192 of A-Z a-z 0-9 _ / + = . @ -, or an ARN")
	}
}

// readFile notes a file that belongs to the configuration, and checks that it can be read.
func (s *setup) readFile(path, name string, m *mistakes) {
	if name == "" {
		return
	}
	f, err := os.Open(name)
	if err != nil {
		m.add(path, "%v", err)
		return
	}
	f.Close()
	s.read = append(s.read, name)
}

func (s *setup) checkEndpoint(m *mistakes) {
	if s.Endpoint == "" && s.Region == "" {
		m.add("endpoint", "is required: host[:port] or a URL; or set region for the cloud's own")
		return
	}
	if s.Endpoint == "" {
		s.Endpoint = "kms." + s.Region + ".aliyuncs.com"
	}
	endpoint := s.Endpoint
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	switch {
	case err != nil ||
		u.Host == "" ||
		u.Scheme != "https" &&
			u.Scheme != "http" ||
		u.User != nil ||
		u.RawQuery != "" ||
		strings.Trim(u.Path, "/") != "":
		m.add("endpoint", "must be host[:port], or an https:// or http:// URL without path, query or user")
	case u.Scheme == "http" && !egress.IsLoopback(u.Hostname()) && !s.AllowPlainHTTP:
		m.add("endpoint", "is plain HTTP and not on loopback: values would cross the network in clear; use https://, or "+
			"set allow_plain_http to accept that")
	}
}

// exactlyOne adds a mistake unless one of the settings is there.
func exactlyOne(path string, m *mistakes, names, values []string) bool {
	n := 0
	for _, v := range values {
		if v != "" {
			n++
		}
	}
	if n != 1 {
		m.add(path, "set exactly one of %s", strings.Join(names, ", "))
	}
	return n == 1
}

func (k KeySource) check(path string, m *mistakes) {
	if !exactlyOne(path, m, []string{"file", "credential", "environment"}, []string{k.File, k.Credential, k.Environment}) {
		return
	}
	switch _, err := k.read(); {
	case err == nil:
	case k.Credential != "" && os.Getenv(credentialsDirectory) == "":
		// systemd puts it there when it starts the agent; a check before that cannot see it
	default:
		m.add(path, "%v", err)
	}
}

func (s *setup) checkLastGood(m *mistakes) {
	l := s.LastGood
	if l == nil {
		return
	}
	if l.Dir == "" {
		m.add("last_good.dir", "is required")
	} else if !filepath.IsAbs(l.Dir) {
		m.add("last_good.dir", "must be an absolute path")
	} else if info, err := os.Stat(l.Dir); err == nil && !info.IsDir() {
		m.add("last_good.dir", "%s is not a directory", l.Dir)
	} else if err == nil && info.Mode().Perm()&0o077 != 0 {
		m.add("last_good.dir", "%s has mode %#o; others must not look into it: chmod 700", l.Dir, info.Mode().Perm())
	} else if errors.Is(err, fs.ErrNotExist) {
		if up, err := os.Stat(filepath.Dir(l.Dir)); err != nil || !up.IsDir() {
			m.add("last_good.dir", "neither %s nor the directory above it is there", l.Dir)
		}
	}
	l.Key.check("last_good.key", l.Dir, m)
}

func (k SealKeySource) check(path, dir string, m *mistakes) {
	if !exactlyOne(path, m, []string{"file", "credential", "keyring"}, []string{k.File, k.Credential, k.Keyring}) ||
		k.File == "" {
		return
	}
	if !filepath.IsAbs(k.File) {
		m.add(path+".file", "must be an absolute path")
		return
	}
	if rel, err := filepath.Rel(dir, k.File); err == nil && filepath.IsLocal(rel) {
		m.add(path+".file", "is in last_good.dir: a key beside what it seals protects nothing; keep it elsewhere")
	}
	if _, err := os.Stat(filepath.Dir(k.File)); err != nil {
		m.add(path+".file", "%v", err)
	}
	if info, err := os.Stat(k.File); err == nil && info.Mode().Perm()&0o077 != 0 {
		m.add(path+".file", "has mode %#o; others must not read it: chmod 600", info.Mode().Perm())
	} else if err == nil && info.Size() < 32 {
		m.add(path+".file", "has fewer than 32 bytes")
	}
}

func (s *setup) checkLog(m *mistakes) {
	if l := s.Log.Level; !slices.Contains([]string{"debug", "info", "warn", "error"}, l) {
		m.add("log.level", "must be debug, info, warn or error")
	}
	if f := s.Log.Format; f != "text" && f != "json" {
		m.add("log.format", "must be text or json")
	}
}

func (s *setup) checkListeners(m *mistakes) {
	taken := map[string]string{}
	address := func(path, address string, anywhere bool) {
		host, port, err := net.SplitHostPort(address)
		switch {
		case err != nil || port == "":
			m.add(path, "must be host:port")
		case !anywhere && !egress.IsLoopback(host):
			m.add(path, "is not on loopback; use 127.0.0.1, [::1] or localhost")
		case port != "0" && taken[address] != "":
			m.add(path, "is the same as %s", taken[address])
		}
		taken[address] = path
	}
	if h := s.HTTP; h != nil {
		s.checkHTTP(m, address)
	}
	if k := s.KMS; k != nil {
		address("kms.listen", k.Listen, false)
		if (k.CertFile == "") != (k.KeyFile == "") {
			m.add("kms", "cert_file and key_file go together: set both or neither")
		}
		s.readFile("kms.cert_file", k.CertFile, m)
		s.readFile("kms.key_file", k.KeyFile, m)
		for i, key := range k.AccessKeys {
			key.check(fmt.Sprintf("kms.access_keys[%d]", i), m)
			if key.File != "" {
				s.read = append(s.read, key.File)
			}
		}
	}
	if s.Status != nil {
		address("status.listen", s.Status.Listen, s.Status.AllowAnyAddress)
	}
}

func (s *setup) checkHTTP(m *mistakes, address func(path, address string, anywhere bool)) {
	h := s.HTTP
	if exactlyOne("http", m, []string{"listen", "socket"}, []string{h.Listen, h.Socket}) {
		if h.Listen != "" {
			address("http.listen", h.Listen, false)
		} else {
			checkPlace("http.socket", h.Socket, m)
		}
	}
	if _, err := parseMode(h.SocketMode); err != nil {
		m.add("http.socket_mode", "%v", err)
	} else if s.socketModeGiven && h.Socket == "" {
		m.add("http.socket_mode", "is for http.socket, which is not set")
	}
	if h.TokenFile == "" {
		m.add("http.token_file", "is required; a missing file is created")
	} else {
		checkPlace("http.token_file", h.TokenFile, m)
	}
}

// checkPlace verifies that a file can be created at a path.
func checkPlace(path, name string, m *mistakes) {
	if !filepath.IsAbs(name) {
		m.add(path, "must be an absolute path")
		return
	}
	if info, err := os.Stat(filepath.Dir(name)); err != nil {
		m.add(path, "%v", err)
	} else if !info.IsDir() {
		m.add(path, "%s is not a directory", filepath.Dir(name))
	}
}
