package servers

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/keyturn/keyturn/test/support"
)

// Redis is a Redis server. Its user "default" has Password and every right.
type Redis struct {
	// Addr speaks plain; TLSAddr speaks TLS with a certificate by Authority.
	Addr, TLSAddr string
	// Bus is where nodes of a cluster reach it, if it is one.
	Bus       string
	Password  string
	Authority *Authority
	Dir       string
	// ACLDir is the directory of the ACL file.
	ACLDir string
	// Config is the server's configuration file.
	Config string

	args  []string
	bin   string
	child *child
}

// WithACLFile and WithoutConfigFile are settings of StartRedis that say where users are stored.
const (
	WithACLFile       = "(with an ACL file)"
	WithoutConfigFile = "(without a configuration file)"
)

// StartRedis starts a Redis server with further lines of configuration.
func StartRedis(t testing.TB, settings ...string) *Redis {
	t.Helper()
	r := &Redis{bin: program(t, "redis-server", "redis-server"), Dir: t.TempDir(), Password: "adm1n-of-the-test"}
	r.Config = filepath.Join(r.Dir, "redis.conf")
	r.Authority = NewAuthority(t, r.Dir)
	r.ACLDir = filepath.Join(r.Dir, "acl")
	if err := os.Mkdir(r.ACLDir, 0o700); err != nil {
		t.Fatal(err)
	}
	acl := filepath.Join(r.ACLDir, "users.acl")
	var lines []string
	file := true
	for _, s := range settings {
		switch s {
		case WithACLFile:
			// With an ACL file the password of the configuration does not count, so the default user is in
			// the file.
			writeFile(t, acl, "user default on >"+r.Password+" ~* &* +@all\n")
			lines = append(lines, "aclfile "+acl)
		case WithoutConfigFile:
			file = false
		default:
			lines = append(lines, s)
		}
	}
	t.Cleanup(func() {
		if r.child != nil {
			if err := r.child.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	var err error
	for range startAttempts {
		ports := support.FreePorts(t, 3)
		r.Addr, r.TLSAddr = net.JoinHostPort("127.0.0.1", ports[0]), net.JoinHostPort("127.0.0.1", ports[1])
		r.Bus = net.JoinHostPort("127.0.0.1", ports[2])
		all := append([]string{
			"bind 127.0.0.1", "port " + ports[0], "tls-port " + ports[1],
			"tls-cert-file " + r.Authority.CertFile, "tls-key-file " + r.Authority.KeyFile,
			"tls-ca-cert-file " + r.Authority.CAFile,
			"tls-auth-clients no", "dir " + r.Dir, `save ""`, "requirepass " + r.Password,
		}, lines...)
		if slices.Contains(lines, "cluster-enabled yes") {
			all = append(all, "cluster-port "+ports[2])
		}
		args := []string{r.Config}
		if file {
			writeFile(t, r.Config, strings.Join(all, "\n")+"\n")
		} else {
			args = nil
			for _, line := range all {
				name, value, _ := strings.Cut(line, " ")
				args = append(args, "--"+name, strings.Trim(value, `"`))
			}
		}
		if err = r.start(args...); err == nil {
			return r
		}
	}
	t.Fatal(err)
	return nil
}

func (r *Redis) start(args ...string) (err error) {
	r.args = args
	r.child, err = startChild(exec.Command(r.bin, args...), func() error {
		if err := listening(r.Addr); err != nil {
			return err
		}
		c := r.Client("default", r.Password)
		defer c.Close()
		return c.Ping(context.Background()).Err()
	})
	return err
}

// Restart ends the server and starts it again from its files at the same addresses.
func (r *Redis) Restart(t testing.TB) {
	t.Helper()
	if err := r.child.stop(); err != nil {
		t.Fatal(err)
	}
	if err := r.start(r.args...); err != nil {
		t.Fatal(err)
	}
}

// Client is a client of a user that logs in at the plain address.
func (r *Redis) Client(user, password string) *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: r.Addr, Username: user, Password: password, Protocol: 2, MaxRetries: -1, DialerRetries: 1, PoolSize: 1,
		ContextTimeoutEnabled: true, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
}

// Do sends a command as the administrator.
func (r *Redis) Do(t testing.TB, args ...any) any {
	t.Helper()
	c := r.Client("default", r.Password)
	defer c.Close()
	out, err := c.Do(t.Context(), args...).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatalf("%v: %v", args[0], err)
	}
	return out
}
