package servers

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/test/support"
)

// RabbitMQ is a RabbitMQ node with the management plug-in.
type RabbitMQ struct {
	// AMQP and API are host:port without TLS; AMQPS and APIS with a certificate of CA for localhost
	// and 127.0.0.1.
	AMQP, API, AMQPS, APIS string
	// Outside is AMQP at an address of the machine that is not loopback; empty without one.
	Outside string
	CA      *LocalCA
	// User and Password are an administrator's.
	User, Password string
}

const rabbitServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// StartRabbitMQ starts a node of its own, with its own Erlang port mapper, in a temporary
// directory; it takes about ten seconds.
func StartRabbitMQ(t testing.TB) *RabbitMQ {
	t.Helper()
	for _, program := range []string{rabbitServer, "epmd", "erl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (Debian package rabbitmq-server, scripts/test-deps)", program)
		}
	}
	for attempt := 1; ; attempt++ {
		r, err := startRabbitMQ(t)
		if err == nil {
			return r
		}
		if attempt == 3 { // a free port may be taken by another process before the child binds it
			t.Fatal(err)
		}
		t.Logf("start RabbitMQ again: %v", err)
	}
}

func startRabbitMQ(t testing.TB) (*RabbitMQ, error) {
	t.Helper()
	dir := t.TempDir()
	ca := NewLocalCA(t)
	cert, key := ca.Issue(t, dir, "localhost", "127.0.0.1")
	caFile := filepath.Join(dir, "ca.crt")
	ports := support.FreePorts(t, 7)
	epmd, dist, amqp, amqps, api, apis := ports[0], ports[1], ports[2], ports[3], ports[4], ports[5]
	at := func(port string) string { return "127.0.0.1:" + port }
	r := &RabbitMQ{
		AMQP:     at(amqp),
		AMQPS:    at(amqps),
		API:      at(api),
		APIS:     at(apis),
		CA:       ca,
		User:     "root-of-test",
		Password: "password-of-root",
	}
	outside := ""
	if r.Outside = outsideOf(ports[6]); r.Outside != "" {
		outside = "listeners.tcp.2 = " + r.Outside + "\n"
	}
	for name, text := range map[string]string{
		caFile:                                  ca.PEM,
		filepath.Join(dir, "enabled_plugins"):   "[rabbitmq_management,rabbitmq_federation].\n",
		filepath.Join(dir, ".erlang.cookie"):    "COOKIEOFATHROWAWAYNODE",
		filepath.Join(dir, "rabbitmq-env.none"): "",
		filepath.Join(dir, "rabbitmq.conf"): outside + fmt.Sprintf(`listeners.tcp.1 = %s
listeners.ssl.1 = %s
ssl_options.cacertfile = %s
ssl_options.certfile = %s
ssl_options.keyfile = %s
management.tcp.ip = 127.0.0.1
management.tcp.port = %s
management.ssl.ip = 127.0.0.1
management.ssl.port = %s
management.ssl.cacertfile = %s
management.ssl.certfile = %s
management.ssl.keyfile = %s
default_user = %s
default_pass = %s
loopback_users.local-only = true
credential_validator.validation_backend = rabbit_credential_validator_min_password_length
credential_validator.min_length = 8
`, r.AMQP, r.AMQPS, caFile, cert, key, api, apis, caFile, cert, key, r.User, r.Password),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	startKept(t, exec.Command("epmd", "-port", epmd, "-address", "127.0.0.1"), nil)
	cmd := exec.Command(rabbitServer)
	cmd.Dir = dir
	cmd.Env = append([]string{
		"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8",
		"ERL_EPMD_PORT=" + epmd, "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=" + "keyturn-" + amqp + "@localhost", "RABBITMQ_DIST_PORT=" + dist,
		"RABBITMQ_CONF_ENV_FILE=" + filepath.Join(dir, "rabbitmq-env.none"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "enabled_plugins"),
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "data"), "RABBITMQ_LOG_BASE=" + filepath.Join(dir, "log"),
		"RABBITMQ_PID_FILE=" + filepath.Join(dir, "pid"), "RABBITMQ_LOGS=-",
		// The script becomes the server, instead of starting one that outlives a killed test.
		"RUNNING_UNDER_SYSTEMD=true",
		// Two cores, shared with others: one scheduler is enough.
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+S 1 +sbwt none",
	}, "RABBITMQ_GENERATED_CONFIG_DIR="+filepath.Join(dir, "config"), "RABBITMQ_SCHEMA_DIR="+filepath.Join(dir, "schema"))
	k := startKept(t, cmd, nil)
	return r, k.ready(t, 90*time.Second, func() error {
		c, err := net.DialTimeout("tcp", r.AMQP, time.Second)
		if err != nil {
			return err
		}
		_ = c.Close()
		req, err := http.NewRequest(http.MethodGet, "http://"+r.API+"/api/whoami", nil)
		if err != nil {
			return err
		}
		req.SetBasicAuth(r.User, r.Password)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	})
}

// outsideOf returns the address with a port of the machine's first interface that is not loopback.
func outsideOf(port string) string {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, a := range list {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return net.JoinHostPort(ip.IP.String(), port)
		}
	}
	return ""
}
