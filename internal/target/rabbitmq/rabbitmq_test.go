package rabbitmq_test

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rabbitmq"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// node is the one RabbitMQ of this package's tests.
type node struct {
	*servers.RabbitMQ
	admin target.Credential // has the tag administrator and no permissions
	users atomic.Int32
}

func start(t *testing.T) *node {
	t.Helper()
	n := &node{
		RabbitMQ: servers.StartRabbitMQ(t),
		admin:    target.Credential{Account: "keyturn", Secret: sensitive.New("password-of-keyturn")},
	}
	n.api(t, http.MethodPut, "/api/users/keyturn", `{"password":"password-of-keyturn","tags":"administrator"}`)
	return n
}

// api calls the API as the administrator of the test.
func (n *node) api(t *testing.T, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+n.API+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(n.User, n.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: status %d, %s, %v", method, path, resp.StatusCode, b, err)
	}
	return string(b)
}

// account makes a user of odd name and password.
func (n *node) account(t *testing.T) target.Credential {
	t.Helper()
	i := n.users.Add(1)
	c := target.Credential{
		Account: fmt.Sprintf(`app/%d & "söns"?`, i),
		Secret:  sensitive.New(fmt.Sprintf(`first p@ss:w/ö"rd\%d`, i)),
	}
	body, _ := json.Marshal(map[string]any{"password": c.Secret.Reveal(), "tags": []string{"monitoring", "kept"}})
	path := "/api/users/" + url.PathEscape(c.Account)
	n.api(t, http.MethodPut, path, string(body))
	n.api(
		t,
		http.MethodPut,
		"/api/permissions/%2F/"+url.PathEscape(c.Account),
		`{"configure":"","write":"","read":".*"}`,
	)
	n.api(t, http.MethodPut, "/api/user-limits/"+url.PathEscape(c.Account)+"/max-connections", `{"value":10}`)
	return c
}

func (n *node) dial(addr string, c target.Credential) (*amqp.Connection, error) {
	return amqp.DialConfig("amqp://"+addr, amqp.Config{
		SASL: []amqp.Authentication{&amqp.PlainAuth{Username: c.Account, Password: c.Secret.Reveal()}}, Vhost: "/",
	})
}

// login asks the API who one is, which every user of these tests may: RabbitMQ lets a client that
// does not understand refusals wait for three seconds.
func (n *node) login(ctx context.Context, c target.Credential) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.API+"/api/whoami", nil)
	if err != nil {
		return false, err
	}
	req.SetBasicAuth(c.Account, c.Secret.Reveal())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.StatusCode == http.StatusOK, nil
}

// session keeps a connection of the user open.
func (n *node) session(t *testing.T, c target.Credential) func() error {
	t.Helper()
	conn, err := n.dial(n.AMQP, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return func() error {
		channel, err := conn.Channel()
		if err != nil {
			return err
		}
		return channel.Close()
	}
}

// oneAddress makes both protocols reachable at one address: the suite puts its proxy before one.
func (n *node) oneAddress(t *testing.T) string {
	t.Helper()
	return support.Serve(t, func(client net.Conn) {
		_ = client.SetDeadline(time.Now().Add(30 * time.Second))
		in := bufio.NewReader(client)
		first, err := in.Peek(4)
		if err != nil {
			return
		}
		to := n.API
		if string(first) == "AMQP" {
			to = n.AMQP
		}
		server, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		var back sync.WaitGroup
		defer back.Wait()
		defer server.Close()
		_ = server.SetDeadline(time.Now().Add(30 * time.Second))
		back.Go(func() {
			_, _ = io.Copy(server, in)
			_ = server.Close()
		})
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}).String()
}

func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	n := start(t)
	t.Run("conformance", func(t *testing.T) {
		t.Parallel()
		targettest.Run(t, targettest.Harness{
			Kind:     rabbitmq.Kind(),
			Addr:     n.oneAddress(t),
			Config:   func(addr string) string { return fmt.Sprintf(`{"api":"http://%[1]s/","amqp":["amqp://%[1]s"]}`, addr) },
			Admin:    n.admin,
			Account:  n.account,
			Login:    n.login,
			Session:  n.session,
			Standing: n.standing(),
		})
	})
	t.Run("keeps the rest of the user", func(t *testing.T) { t.Parallel(); n.keepsTheRest(t) })
	t.Run("clears only the old password", func(t *testing.T) { t.Parallel(); n.clearsOnlyOld(t) })
	t.Run("other algorithms", func(t *testing.T) { t.Parallel(); n.otherAlgorithms(t) })
	t.Run("errors", func(t *testing.T) { t.Parallel(); n.errors(t) })
	t.Run("tls", func(t *testing.T) { t.Parallel(); n.tls(t) })
	t.Run("admitted", func(t *testing.T) { t.Parallel(); n.admitted(t) })
	t.Run("login of the application", func(t *testing.T) { t.Parallel(); n.application(t) })
	t.Run("check of an account", func(t *testing.T) { t.Parallel(); n.checkAccount(t) })
	t.Run("a user of the broker's host", func(t *testing.T) { t.Parallel(); n.fromHere(t) })
	t.Run("client certificates", func(t *testing.T) { t.Parallel(); n.certificates(t) })
	t.Run("tags", func(t *testing.T) { t.Parallel(); n.tags(t) })
	t.Run("standing without rights", func(t *testing.T) { t.Parallel(); n.standingWithoutRights(t) })
}

func (n *node) open(t *testing.T, config string) target.Target {
	t.Helper()
	return targettest.Open(t, rabbitmq.Kind(), config, n.admin)
}

func (n *node) plain(t *testing.T) target.Target {
	t.Helper()
	return n.open(t, fmt.Sprintf(`{"api":"http://%s","amqp":["amqp://%s"]}`, n.API, n.AMQP))
}

func with(c target.Credential, password string) target.Credential {
	c.Secret = sensitive.New(password)
	return c
}

func (n *node) keepsTheRest(t *testing.T) {
	old, other := n.account(t), n.account(t)
	describe := func() string {
		var u map[string]any
		if err := json.Unmarshal([]byte(n.api(t, http.MethodGet, "/api/users/"+url.PathEscape(other.Account), "")), &u); err != nil {
			t.Fatal(err)
		}
		delete(u, "password_hash")
		b, _ := json.Marshal(u)
		return string(b) + n.api(t, http.MethodGet, "/api/users/"+url.PathEscape(other.Account)+"/permissions", "")
	}
	before := describe()
	tt := n.plain(t)
	c := target.Change{ID: "c", Strategy: target.Double, Old: old, New: with(other, "the-new-password-of-it")}
	if err := tt.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := tt.Retire(t.Context(), target.Change{ID: "d", Strategy: target.Double, Old: c.New, New: old}); err != nil {
		t.Fatal(err)
	}
	if after := describe(); after != before || !strings.Contains(before, "kept") ||
		!strings.Contains(before, `"max-connections":10`) {
		t.Errorf("the user was %s\nand is %s", before, after)
	}
}

func (n *node) clearsOnlyOld(t *testing.T) {
	tt := n.plain(t)
	old, other := n.account(t), n.account(t)
	c := target.Change{ID: "c", Strategy: target.Double, Old: with(old, "not-the-one-any-more"), New: other}
	if err := tt.Retire(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := tt.Verify(t.Context(), old); err != nil {
		t.Errorf("another password than the old one was cleared: %v", err)
	}
	gone := target.Credential{Account: "gone", Secret: sensitive.New("whatever-it-was")}
	if err := tt.Retire(t.Context(), target.Change{ID: "c", Strategy: target.Double, Old: gone, New: other}); err != nil {
		t.Errorf("the password of a user that is gone: %v", err)
	}
	// With neither user there, nothing proves that this is the place to look.
	if err := tt.Retire(t.Context(), target.Change{ID: "c", Strategy: target.Double, Old: gone, New: with(gone, "x")}); target.ClassOf(
		err,
	) != target.Denied {
		t.Errorf("one user for both: %v", err)
	}
	nobody := target.Credential{Account: "nobody", Secret: sensitive.New("whatever-it-is")}
	if err := tt.Retire(t.Context(), target.Change{ID: "c", Strategy: target.Double, Old: gone, New: nobody}); target.ClassOf(
		err,
	) != target.Denied {
		t.Errorf("neither user is there: %v", err)
	}
}

func (n *node) otherAlgorithms(t *testing.T) {
	tt := n.plain(t)
	sha512, md5, other := n.account(t), n.account(t), n.account(t)
	// Base64 of salt and digest of "a-known-password".
	n.api(
		t,
		http.MethodPut,
		"/api/users/"+url.PathEscape(sha512.Account),
		`{"password_hash":"`+sha512Hash(
			"a-known-password",
		)+`","hashing_algorithm":"rabbit_password_hashing_sha512","tags":""}`,
	)
	n.hashedByMD5(t, md5)
	known := with(sha512, "a-known-password")
	if err := tt.Verify(t.Context(), known); err != nil {
		t.Fatal(err)
	}
	got, err := tt.(target.Inspector).Inspect(
		t.Context(),
		[]target.Credential{known, with(sha512, "another"), md5, with(md5, "another"), {Account: "absent"}},
	)
	if want := []target.Liveness{target.Live, target.Dead, target.Live, target.Dead, target.NotKnown}; err != nil ||
		fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("Inspect = %v, %v; want %v", got, err, want)
	}
	targettest.Must(t, tt.Retire(t.Context(), target.Change{ID: "c", Strategy: target.Double, Old: md5, New: other}))
	targettest.Expect(t, tt.Verify(t.Context(), md5), target.Rejected, "403")
	n.hashedByMD5(t, md5)
	c := target.Change{ID: "c", Strategy: target.Double, Old: other, New: with(md5, "a-password-for-sha256")}
	targettest.Expect(t, tt.Apply(t.Context(), c), target.Denied, "rabbit_password_hashing_md5", "hash-changes")
	targettest.Must(t, n.openAs(t, target.Login{}, "hash-changes").Apply(t.Context(), c))
	targettest.Must(t, tt.Verify(t.Context(), c.New))
	c.New = with(sha512, "a-password-for-sha512")
	targettest.Must(t, tt.Apply(t.Context(), c))
	targettest.Must(t, tt.Verify(t.Context(), c.New))
	u := n.api(t, http.MethodGet, "/api/users/"+url.PathEscape(sha512.Account), "")
	if !strings.Contains(u, "rabbit_password_hashing_sha512") {
		t.Error("a rotation does not keep the algorithm SHA-512")
	}
}

// hashedByMD5 gives a user its password again, with a hash that RabbitMQ before version 3.6 made.
func (n *node) hashedByMD5(t *testing.T, c target.Credential) {
	t.Helper()
	sum := md5.Sum([]byte("salt" + c.Secret.Reveal()))
	hash := base64.StdEncoding.EncodeToString(append([]byte("salt"), sum[:]...))
	n.api(t, http.MethodPut, "/api/users/"+url.PathEscape(c.Account),
		`{"password_hash":"`+hash+`","hashing_algorithm":"rabbit_password_hashing_md5","tags":""}`)
}

func (n *node) errors(t *testing.T) {
	tt := n.plain(t)
	good := n.account(t)
	nobody := target.Credential{Account: "no/body", Secret: sensitive.New("secret-of-nobody")}
	err := tt.Apply(t.Context(), target.Change{ID: "c", Strategy: target.Double, Old: good, New: nobody})
	if target.ClassOf(err) != target.Denied ||
		!strings.Contains(fmt.Sprint(err), `set the password of "no/body" at test: there is no such user`) {
		t.Errorf("a user that does not exist: class %v, %v", target.ClassOf(err), err)
	}
	err = tt.Verify(t.Context(), with(good, "wrong"))
	if target.ClassOf(err) != target.Rejected ||
		!strings.Contains(targettest.OperatorText(err), "ACCESS_REFUSED - Login was refused") {
		t.Errorf("a wrong password: class %v, %v", target.ClassOf(err), err)
	}
	err = n.open(
		t,
		fmt.Sprintf(`{"api":"http://%s","amqp":["amqp://%s"],"vhost":"other"}`, n.API, n.AMQP),
	).Verify(
		t.Context(),
		good,
	)
	if target.ClassOf(err) != target.Admitted || !strings.Contains(targettest.OperatorText(err), "vhost") {
		t.Errorf("a virtual host that does not exist: class %v, %v", target.ClassOf(err), err)
	}
	// A login that is cut is no verdict, wherever it is cut.
	p := targettest.NewProxy(t, n.AMQP)
	through := n.open(t, fmt.Sprintf(`{"api":"http://%s","amqp":["amqp://%s"]}`, n.API, p.Addr()))
	if err := through.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	sent, replied, _ := p.Passed()
	for i := range 8 {
		for _, fault := range [][2]targettest.Fault{
			{{After: sent * i / 8, Kind: targettest.Reset}, {}}, {{}, {After: replied * i / 8, Kind: targettest.Reset}},
		} {
			p.Set(fault[0], fault[1])
			err := through.Verify(t.Context(), good)
			if class := target.ClassOf(err); err != nil && class != target.Unknown && class != target.Unreachable {
				t.Errorf("a login that was cut (%+v): class %v, %v", fault, class, err)
			}
		}
	}
	// Something else than RabbitMQ.
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	err = n.open(
		t,
		fmt.Sprintf(`{"api":%q,"amqp":["amqp://%s"]}`, other.URL, n.AMQP),
	).Apply(
		t.Context(),
		target.Change{ID: "c", Strategy: target.Single, Old: good, New: good},
	)
	if class := target.ClassOf(err); err == nil || class == target.Refused || class == target.Rejected ||
		!strings.Contains(err.Error(), "HTTP 404") {
		t.Errorf("another server: class %v, %v", class, err)
	}
}

func (n *node) tls(t *testing.T) {
	ca, _ := json.Marshal(n.CA.PEM)
	config := func(tls string) string {
		return fmt.Sprintf(`{"api":"https://%s","amqp":["amqps://%s"],"tls":{%s}}`, n.APIS, n.AMQPS, tls)
	}
	old := n.account(t)
	c := target.Change{ID: "c", Strategy: target.Single, Old: old, New: with(old, "the-new-password-of-it")}
	for tls, want := range map[string]string{"": "unknown authority", `"server_name":"bus.internal","ca":` + string(ca): "certificate is valid for localhost"} {
		tt := n.open(t, config(tls))
		for what, err := range map[string]error{"Apply": tt.Apply(t.Context(), c), "Verify": tt.Verify(t.Context(), old)} {
			if target.ClassOf(err) != target.Unreachable || !strings.Contains(targettest.OperatorText(err), want) {
				t.Errorf("%s with %.30s: class %v, %v; want %q", what, tls, target.ClassOf(err), err, want)
			}
		}
	}
	tt := n.open(t, config(`"ca":`+string(ca)))
	if err := tt.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := tt.Verify(t.Context(), c.New); err != nil {
		t.Error(err)
	}
}
