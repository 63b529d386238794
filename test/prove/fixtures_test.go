package prove

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/cli"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/servers"
)

// kinds returns those that a child can register: every kind of the product, and a counting one.
func kinds(o order) []target.Kind {
	commands := command.Config{}
	if o.CommandDir != "" {
		commands = commandIn(o.CommandDir)
	}
	return append(cli.TargetKinds(commands), counted(o.Calls))
}

// proofs has, for each kind of target, what tries it with real servers.
var proofs = map[string]func(*testing.T){
	"postgresql": provePostgreSQL,
	"mariadb":    proveMariaDB,
	"mysql":      proveMySQL,
	"redis":      proveRedis,
	"ldap":       proveLDAP,
	"ssh":        proveSSH,
	"rabbitmq":   proveRabbitMQ,
	"oauth":      proveOAuth,
	"webhook":    proveWebhook,
	"command":    proveCommand,
}

// TestEveryKindIsProven does everything with each kind of target that the product has.
func TestEveryKindIsProven(t *testing.T) {
	t.Parallel()
	for _, k := range cli.TargetKinds(command.Config{}) {
		run := proofs[k.Name]
		if run == nil {
			t.Errorf("kind %s is not tried with a real server: add it to proofs", k.Name)
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

// commandIn is the command of examples/command-target in a directory.
func commandIn(dir string) command.Config {
	return command.Config{
		User: command.User{Self: true},
		Commands: map[string]command.Line{
			"rotate": {
				Path: filepath.Join(dir, "rotate.sh"),
				Env:  map[string]string{"KEYTURN_KEYS": filepath.Join(dir, "keys")},
			},
		},
	}
}

// fixture is one kind of target with one strategy, before a real server.
type fixture struct {
	name string // of the figures, and of the target: letters, digits and underscores
	kind string
	addr string // of the real server; empty where there is no network between
	door door
	// own completes the door for the application of an account; nil for nothing.
	own      func(d *door, account string)
	strategy target.Strategy
	// stated are pieces of an application's work that the page of the kind says differ.
	stated []string
	// config is the target's configuration for a server that is reached at addr, which may be a proxy.
	config func(addr string) string
	// admin is the value of the administrator's secret; empty for none.
	admin string
	// dir holds executables that are targets.
	dir string
	// secret makes the Nth account, or pair of accounts, at the server, and says how its secret is
	// created and configured.
	secret func(t testing.TB, c *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest)
	// byHand gives an account another password, as an administrator of the server would; nil where
	// that is not tried.
	byHand func(t testing.TB, account, password string)

	// refusal is part of the reason for which a repair by "apply" is refused until the target is
	// changed; empty where it is not refused. change makes that change.
	refusal string
	change  func(t testing.TB, c *process)

	// turn is the time between two turns of the oracle, in milliseconds; 0 means 10.
	turn int

	// slow is how long a call may take at a server that needs longer than others, in milliseconds.
	slow int

	// mute says that the server does not tell what it accepts: a lost answer costs a failed login,
	// and the minute in which no other may fail.
	mute bool

	numbers *atomic.Int64 // of the accounts that were made
}

func (f fixture) order(o order) order {
	o.CommandDir = f.dir
	return o
}

// at is where consumers log in; Keyturn's own users do at Keyturn.
func (f fixture) at(c *process) door {
	d := f.door
	if d.Kind == "ram" {
		d.Address = c.endpoint
	}
	return d
}

type account struct{ AccountName, AccountPassword string }

func first(name string) account { return account{name, "first-password-of-" + name} }

// stored is the value of a version that holds an account, in the shape of the fixture's secrets.
func (f fixture) stored(a account) string {
	if f.kind == "postgresql" || f.kind == "mariadb" || f.kind == "mysql" {
		return compact(map[string]any{"Accounts": []account{a}})
	}
	return compact(a)
}

// rds makes an Rds secret of one account, or of two.
func rds(targetName string, accounts ...account) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
	subType := map[int]string{1: "SingleUser", 2: "DoubleUsers"}[len(accounts)]
	return kms.CreateSecretRequest{
		SecretName: "of-" + accounts[0].AccountName, SecretType: kms.TypeRds, VersionID: "v1",
		SecretData:     sensitive.New(compact(map[string]any{"Accounts": accounts})),
		ExtendedConfig: compact(map[string]string{"SecretSubType": subType, "DBInstanceId": targetName}),
	}, kms.ConfigureRotationRequest{}
}

// generic makes a Generic secret for a target; with a clone by the strategy double.
func generic(name, targetName string, a account, clone string) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
	configure := kms.ConfigureRotationRequest{TargetName: targetName}
	if clone != "" {
		configure.Strategy, configure.AccountName, configure.CloneAccountName = string(target.Double), a.AccountName, clone
	}
	return kms.CreateSecretRequest{SecretName: name, VersionID: "v1", SecretData: sensitive.New(compact(a))}, configure
}

func plain(addr string) string { return fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, addr) }

// TestOwnUsers has Keyturn rotate access keys of its own users.
func TestOwnUsers(t *testing.T) {
	t.Parallel()
	f := fixture{name: "own_users_overlap", door: door{Kind: "ram"}, strategy: target.Overlap}
	f.secret = func(t testing.TB, c *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		users, name := ram.New(c.Client), fmt.Sprintf("user%d", n)
		good(t, second(users.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: name})))
		key, err := users.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{UserName: name})
		good(t, err)
		return kms.CreateSecretRequest{
			SecretName: kms.Auto, SecretType: kms.TypeRAMCredentials, VersionID: "v1",
			SecretData: sensitive.New(compact(map[string]any{"AccessKeys": []map[string]string{
				{"AccessKeyId": key.AccessKey.AccessKeyID, "AccessKeySecret": key.AccessKey.AccessKeySecret.Reveal()},
			}})),
			ExtendedConfig: compact(map[string]string{"SecretSubType": "RamUserAccessKey", "UserName": name}),
		}, kms.ConfigureRotationRequest{}
	}
	prove(t, f, parts{})
}

// proveOAuth has Keyturn rotate secrets of clients of Ory Hydra.
func proveOAuth(t *testing.T) {
	h := servers.StartHydra(t)
	// One address for both of its APIs, as where it is in real use. One request at a time, each to
	// its end: with SQLite it answers two writers with "Unable to serialize access".
	var one sync.Mutex
	gateway := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body) // it may never come to its end
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		to := &url.URL{Scheme: "http", Host: h.Public}
		if strings.HasPrefix(r.URL.Path, "/admin/") {
			to.Host = h.Admin
		}
		one.Lock()
		defer one.Unlock()
		(&httputil.ReverseProxy{
			Rewrite:  func(p *httputil.ProxyRequest) { p.SetURL(to); p.SetXForwarded() },
			ErrorLog: stdlog.New(io.Discard, "", 0), // of requests that the test breaks off
		}).ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	}))
	t.Cleanup(gateway.Close)
	call := func(t testing.TB, method, path string, body any) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, gateway.URL+path, strings.NewReader(compact(body)))
		good(t, err)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		good(t, err)
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: status %d", method, path, resp.StatusCode)
		}
	}
	addr := gateway.Listener.Addr().String()
	f := fixture{
		name: "oauth_single", kind: "oauth", addr: addr, mute: true,
		door: door{Kind: "oauth", Address: addr}, strategy: target.Single,
		config: func(addr string) string {
			return fmt.Sprintf(`{"token_urls":["http://%[1]s/oauth2/token"],"admin_auth":"none",
				"get":{"url":"http://%[1]s/admin/clients/{client_id}"},
				"set":{"method":"PATCH","url":"http://%[1]s/admin/clients/{client_id}",
				"body":[{"op":"replace","path":"/client_secret","value":"{secret}"}]}}`, addr)
		},
		byHand: func(t testing.TB, name, password string) {
			call(t, http.MethodPatch, "/admin/clients/"+name, []map[string]string{
				{"op": "replace", "path": "/client_secret", "value": password},
			})
		},
	}
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("s%d", n))
		call(t, http.MethodPost, "/admin/clients", map[string]any{
			"client_id": a.AccountName, "client_secret": a.AccountPassword, "grant_types": []string{"client_credentials"},
			"token_endpoint_auth_method": "client_secret_basic",
		})
		return generic("of-"+a.AccountName, f.name, a, "")
	}
	prove(t, f, parts{drift: *full, brief: true})
}

// hook is a service with an endpoint for Keyturn.
type hook struct {
	key string

	mu   sync.Mutex
	live map[string][]string // guarded by mu; the passwords of each account
}

type hookMessage struct {
	Step, Strategy string
	New, Old       hookCredential
	Credentials    []hookCredential
}

type hookCredential struct{ Account, Secret string }

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body) // it may never come to its end
	h.mu.Lock()
	defer h.mu.Unlock()
	if name, password, ok := r.BasicAuth(); ok {
		if !slices.Contains(h.live[name], password) {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return
	}
	if err != nil || !sign.CheckWebhook(r.Header, h.key, time.Now(), body) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var in hookMessage
	_ = json.Unmarshal(body, &in)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, compact(h.step(in)))
}

func (h *hook) step(in hookMessage) map[string]any {
	name := in.New.Account
	has := func(c hookCredential) bool { return slices.Contains(h.live[c.Account], c.Secret) }
	switch in.Step {
	case "set":
		if !has(in.New) {
			h.live[name] = append(h.live[name], in.New.Secret)
		}
	case "retire":
		h.live[in.Old.Account] = slices.DeleteFunc(h.live[in.Old.Account], func(s string) bool { return s == in.Old.Secret })
	case "verify":
		if !has(in.New) {
			return map[string]any{"result": "rejected"}
		}
	case "state":
		states := []string{}
		for _, c := range in.Credentials {
			states = append(states, map[bool]string{true: "live", false: "dead"}[has(c)])
		}
		return map[string]any{"result": "ok", "states": states}
	default:
		return map[string]any{"result": "denied"}
	}
	return map[string]any{"result": "ok"}
}

func proveWebhook(t *testing.T) {
	h := &hook{key: "a-secret-that-only-the-two-know", live: map[string][]string{}}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	set := func(_ testing.TB, name, password string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.live[name] = []string{password}
	}
	addr := s.Listener.Addr().String()
	f := fixture{
		name: "webhook_overlap", kind: "webhook", addr: addr,
		door: door{Kind: "webhook", Address: addr}, strategy: target.Overlap, admin: h.key, byHand: set,
		config: func(addr string) string { return fmt.Sprintf(`{"url":"http://%s/keyturn","strategy":"overlap"}`, addr) },
	}
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("o%d", n))
		set(t, a.AccountName, a.AccountPassword)
		return generic("of-"+a.AccountName, f.name, a, "")
	}
	prove(t, f, parts{drift: *full})
}

// proveCommand runs the script of examples/command-target.
func proveCommand(t *testing.T) {
	for _, program := range []string{"jq", "flock", "sha256sum", "awk"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed (scripts/test-deps)", program)
		}
	}
	text, err := os.ReadFile("../../examples/command-target/rotate.sh")
	good(t, err)
	dir := t.TempDir()
	good(t, os.Chmod(dir, 0o700))
	script, keys := filepath.Join(dir, "rotate.sh"), filepath.Join(dir, "keys")
	// a process that started meanwhile would have it open for writing, and such a file cannot be run
	syscall.ForkLock.RLock()
	err = os.WriteFile(script, text, 0o700)
	syscall.ForkLock.RUnlock()
	good(t, err)
	f := fixture{
		name: "command_overlap", kind: "command", door: door{Kind: "command", Address: keys},
		strategy: target.Overlap, dir: dir,
		config: func(string) string {
			return `{"command":"rotate","strategy":"overlap"}`
		},
	}
	adder, err := command.Kind(commandIn(dir)).Open(target.Settings{Name: "adder", Config: []byte(f.config(""))})
	good(t, err)
	f.secret = func(t testing.TB, _ *process, n int) (kms.CreateSecretRequest, kms.ConfigureRotationRequest) {
		a := first(fmt.Sprintf("account-%d", n))
		good(t, adder.Apply(t.Context(), target.Change{
			ID:       "first",
			Strategy: target.Overlap,
			New:      target.Credential{Account: a.AccountName, Secret: sensitive.New(a.AccountPassword)},
		}))
		return generic("of-"+a.AccountName, f.name, a, "")
	}
	prove(t, f, parts{})
}
