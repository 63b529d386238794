package messy

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
)

func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	b := &broker{RabbitMQ: servers.StartRabbitMQ(t)}
	dir := t.TempDir()
	b.caFile = filepath.Join(dir, "ca.crt")
	good(t, os.WriteFile(b.caFile, []byte(b.CA.PEM), 0o600))
	b.certFile, b.keyFile = b.CA.Issue(t, dir, "app.internal")
	cert, err := os.ReadFile(b.certFile)
	good(t, err)
	key, err := os.ReadFile(b.keyFile)
	good(t, err)
	p := player{product: start(t, "rabbitmq", compact(pair{b.User, b.Password})), label: "messy_rabbitmq"}
	p.put(t, "client-pem", string(cert)+string(key))
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { b.build(t, p.product, s, r) }
	p.play(t)
}

// broker is the node that all scenes share.
type broker struct {
	*servers.RabbitMQ
	caFile, certFile, keyFile string // of its clients
}

// call calls the API as the administrator.
func (b *broker) call(ctx context.Context, method, path string, body any) (string, error) {
	var reader io.Reader
	if body != nil {
		reader = strings.NewReader(compact(body))
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+b.API+path, reader)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth(b.User, b.Password)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode/100 != 2 {
		return "", fmt.Errorf("%s %s: status %d", method, path, resp.StatusCode)
	}
	return string(text), err
}

// brokerScene is a scene with the rights of its users.
type brokerScene struct {
	*scene
	b               *broker
	app             string
	vhost, opens    string
	algorithm, tags string
	permissions     map[string]string
	limits          map[string]int
	topics          bool
	second          string // another virtual host of the application
	configure       kms.ConfigureRotationRequest
}

func (b *broker) build(t *testing.T, p *product, scene *scene, r *rand.Rand) {
	s := &brokerScene{scene: scene, b: b, app: "app-" + scene.name, vhost: "/", limits: map[string]int{}}
	password := "first-password-of-" + s.name
	s.strategy = []target.Strategy{target.Single, target.Double}[r.IntN(2)]
	s.first = compact(pair{s.app, password})
	s.configure = kms.ConfigureRotationRequest{
		TargetName:  s.name,
		Strategy:    string(s.strategy),
		GracePeriod: map[target.Strategy]string{target.Single: "0s", target.Double: "1h"}[s.strategy],
		AccountName: s.app,
	}
	s.makeHosts(t, r)
	s.pickRights(r)
	s.create(t, s.app, password)
	if s.strategy == target.Double {
		s.configure.CloneAccountName = s.app + "-clone"
		if s.trait(r, 6, "the second user has another tag") {
			s.tags = "blue-team"
			s.consent(r, "partner-differs")
			s.stated = append(s.stated, "account")
		}
		s.create(t, s.app+"-clone", "another-password-of-"+s.name)
	}
	if s.trait(r, 8, "a link of the broker logs in with the user") {
		s.put(t, "/api/parameters/federation-upstream/%2F/up-"+s.name,
			map[string]any{"value": map[string]any{"uri": "amqp://" + s.app + ":password@other.example"}})
		s.consent(r, "links")
	}
	config := s.connect(r)
	var policy []string
	if strings.Contains(s.tags, "policymaker") && !s.trait(r, 6, "and the account policy does not name it") {
		policy = []string{s.app, s.app + "-clone"}
	}
	good(t, second(p.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName:      s.name,
		Kind:            p.kind,
		Config:          compact(config),
		AdminSecretName: p.admin,
		Accounts:        policy,
	})))
	s.attach = func() (string, error) { return p.configure(t, s.first, s.configure) }
	s.scene.also = s.also
}

// consent agrees to a finding in most scenes.
func (s *brokerScene) consent(r *rand.Rand, token string) {
	if !s.trait(r, 3, "without consent") {
		s.configure.Consents = append(s.configure.Consents, token)
	}
}

func (s *brokerScene) put(t *testing.T, path string, body any) {
	t.Helper()
	good(t, second(s.b.call(t.Context(), http.MethodPut, path, body)))
}

// makeHosts makes the virtual hosts of the application.
func (s *brokerScene) makeHosts(t *testing.T, r *rand.Rand) {
	host := func(name string) string {
		path := "/api/vhosts/" + url.PathEscape(name)
		s.put(t, path, map[string]string{})
		t.Cleanup(func() { _, _ = s.b.call(context.Background(), http.MethodDelete, path, nil) })
		return name
	}
	if s.trait(r, 3, "a second virtual host") {
		s.second = host("second-" + s.name)
	}
	if !s.trait(r, 2, "a virtual host of its own") {
		s.opens = s.vhost
		return
	}
	s.vhost = host("vhost-" + s.name)
	s.opens = s.vhost
	if s.trait(r, 4, "which the target does not name") {
		s.opens = "/"
		if s.trait(r, 2, "but the secret does") {
			s.configure.LoginDatabase = s.vhost
		}
	}
	if s.trait(r, 4, "limits of the virtual host") {
		value := map[string]int{"value": 5}
		if s.strategy == target.Single {
			value["value"] = 1 // the broker counts late, so a check with double finds it full after a while
		}
		s.put(t, "/api/vhost-limits/"+url.PathEscape(s.vhost)+"/max-connections", value)
		s.occupy = func(value string) func() { return s.b.occupy(s.scene, value) }
	}
}

// pickRights decides what the users of the application may do.
func (s *brokerScene) pickRights(r *rand.Rand) {
	s.algorithm = s.one(r, "hash", "sha256", "sha256", "sha512", "sha512", "md5")
	if s.algorithm == "md5" {
		s.consent(r, "hash-changes")
		s.stated = append(s.stated, "account") // it has the algorithm
	}
	s.tags = s.one(r, "tags", "", "", "monitoring", "management,team-blue", "policymaker")
	s.permissions = map[string]string{"configure": s.name + ".*", "write": s.name + ".*", "read": ".*"}
	if s.trait(r, 3, "no right to configure") {
		s.permissions["configure"] = ""
	}
	if s.occupy == nil && s.trait(r, 4, "connections reached by the application") {
		s.limits["max-connections"] = 1
		s.second = ""
		s.occupy = func(value string) func() { return s.b.occupy(s.scene, value) }
	}
	if s.trait(r, 4, "a limit of channels") {
		s.limits["max-channels"] = 3
	}
	s.topics = s.trait(r, 3, "rights on topics")
}

// create makes a user with a hash of the algorithm, which a rotation changes later, and the rights.
func (s *brokerScene) create(t *testing.T, name, password string) {
	t.Helper()
	user := map[string]string{
		"tags":              s.tags,
		"password_hash":     brokerHash(s.algorithm, password),
		"hashing_algorithm": "rabbit_password_hashing_" + s.algorithm,
	}
	path := url.PathEscape(name)
	s.put(t, "/api/users/"+path, user)
	t.Cleanup(func() { _, _ = s.b.call(context.Background(), http.MethodDelete, "/api/users/"+path, nil) })
	for _, host := range []string{s.vhost, s.second} {
		if host == "" {
			continue
		}
		s.put(t, "/api/permissions/"+url.PathEscape(host)+"/"+path, s.permissions)
		if s.topics {
			s.put(t, "/api/topic-permissions/"+url.PathEscape(host)+"/"+path,
				map[string]string{"exchange": "amq.topic", "write": "^" + s.name, "read": ".*"})
		}
	}
	for limit, value := range s.limits {
		s.put(t, "/api/user-limits/"+path+"/"+limit, map[string]int{"value": value})
	}
}

// brokerHash is a hash of a password as RabbitMQ stores it.
func brokerHash(algorithm, password string) string {
	const salt = "salt"
	salted := []byte(salt + password)
	var sum []byte
	switch algorithm {
	case "md5":
		of := md5.Sum(salted)
		sum = of[:]
	case "sha512":
		of := sha512.Sum512(salted)
		sum = of[:]
	default:
		of := sha256.Sum256(salted)
		sum = of[:]
	}
	return base64.StdEncoding.EncodeToString(append([]byte(salt), sum...))
}

// connect decides how the application and the product connect, and returns the target's settings.
func (s *brokerScene) connect(r *rand.Rand) map[string]any {
	app := applications.Config{Kind: "rabbitmq", Address: s.b.AMQP, Database: s.vhost, Name: s.name}
	config := map[string]any{"api": "http://" + s.b.API}
	addresses := []string{"amqp://" + s.b.AMQP}
	if s.trait(r, 4, "TLS") {
		app.Address, app.CA = s.b.AMQPS, s.b.caFile
		config = map[string]any{"api": "https://" + s.b.APIS, "tls": map[string]string{"ca": s.b.CA.PEM}}
		addresses = []string{"amqps://" + s.b.AMQPS}
		if s.trait(r, 2, "with a client certificate") {
			app.Certificate, app.Key = s.b.certFile, s.b.keyFile
			s.configure.LoginCertificateSecret = "client-pem"
		}
	}
	if s.trait(r, 12, "an address is down") {
		if !s.trait(r, 3, "which the application uses, too") {
			s.configure.LoginEndpoints = addresses[:1:1]
		}
		addresses = append(addresses, "amqp://127.0.0.1:1")
	}
	config["amqp"] = addresses
	if s.opens != "/" {
		config["vhost"] = s.opens
	}
	s.scene.app = applications.New(app)
	return config
}

// also adds what the administrator sees of the user, and the second virtual host.
func (s *brokerScene) also(ctx context.Context, value string, out outcome) error {
	a, err := applications.Parse(value)
	if err != nil {
		return err
	}
	if out["account"], err = s.b.account(ctx, a.AccountName); err != nil || s.second == "" {
		return err
	}
	there := applications.Config{Kind: "rabbitmq", Address: s.b.AMQP, Database: s.second, Name: s.name}
	in, err := applications.New(there).Login(ctx, value)
	out["the second virtual host"] = fmt.Sprint(in)
	return err
}

// occupy keeps a connection open.
func (b *broker) occupy(s *scene, value string) (release func()) {
	end, err := s.app.Open(context.Background(), value)
	if err != nil {
		return func() {}
	}
	return func() { _ = end() } // nothing depends on the goodbye
}

// account is what the administrator sees of a user, without its hash.
func (b *broker) account(ctx context.Context, name string) (string, error) {
	var lines []string
	for _, path := range []string{"", "/permissions", "/topic-permissions"} {
		text, err := b.call(ctx, http.MethodGet, "/api/users/"+url.PathEscape(name)+path, nil)
		if err != nil {
			return "", err
		}
		var user map[string]any
		if json.Unmarshal([]byte(text), &user) == nil {
			delete(user, "password_hash")
			text = compact(user)
		}
		lines = append(lines, strings.ReplaceAll(text, name, "app"))
	}
	return strings.Join(lines, "; "), nil
}
