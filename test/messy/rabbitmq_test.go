package messy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
)

func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	if !*full && *seeds == 0 {
		t.Skip("RabbitMQ takes long to start: it is in the full run alone")
	}
	b := &broker{servers.StartRabbitMQ(t)}
	p := player{product: start(t, "rabbitmq", compact(pair{b.User, b.Password})), label: "messy_rabbitmq"}
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { b.build(t, p.product, s, r) }
	p.play(t)
}

// broker is the node that all scenes share.
type broker struct{ *servers.RabbitMQ }

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

func (b *broker) build(t *testing.T, p *product, s *scene, r *rand.Rand) {
	put := func(path string, body any) {
		t.Helper()
		good(t, second(b.call(t.Context(), http.MethodPut, path, body)))
	}
	app, password, vhost := "app-"+s.name, "first-password-of-"+s.name, "/"
	opens, named := vhost, ""
	if s.trait(r, 2, "a virtual host of its own") {
		vhost = "vhost-" + s.name
		opens = vhost
		put("/api/vhosts/"+url.PathEscape(vhost), map[string]string{})
		t.Cleanup(func() {
			_, _ = b.call(context.Background(), http.MethodDelete, "/api/vhosts/"+url.PathEscape(vhost), nil)
		})
		if s.trait(r, 4, "which the target does not name") {
			opens = "/"
			if s.trait(r, 2, "but the secret does") {
				named = vhost
			}
		}
	}
	algorithm := s.one(r, "hash", "rabbit_password_hashing_sha256", "rabbit_password_hashing_sha512")
	tags := s.one(r, "tags", "", "", "monitoring", "management,team-blue")
	permissions := map[string]string{"configure": s.name + ".*", "write": s.name + ".*", "read": ".*"}
	if s.trait(r, 3, "no right to configure") {
		permissions["configure"] = ""
	}
	limit := s.trait(r, 4, "connections reached by the application")
	topics := s.trait(r, 3, "rights on topics")
	create := func(name, password string) {
		user := map[string]string{"password": password, "tags": tags}
		if algorithm != "rabbit_password_hashing_sha256" {
			user["hashing_algorithm"] = algorithm
		}
		put("/api/users/"+url.PathEscape(name), user)
		put("/api/permissions/"+url.PathEscape(vhost)+"/"+url.PathEscape(name), permissions)
		if topics {
			put("/api/topic-permissions/"+url.PathEscape(vhost)+"/"+url.PathEscape(name),
				map[string]string{"exchange": "amq.topic", "write": "^" + s.name, "read": ".*"})
		}
		if limit {
			put("/api/user-limits/"+url.PathEscape(name)+"/max-connections", map[string]int{"value": 1})
		}
	}
	create(app, password)
	if limit {
		s.occupy = func(value string) func() { return b.occupy(s, value) }
	}
	config := map[string]any{"api": "http://" + b.API, "amqp": []string{"amqp://" + b.AMQP}}
	if opens != "/" {
		config["vhost"] = opens
	}
	p.register(t, s.name, compact(config))
	s.first = compact(pair{app, password})
	s.strategy = []target.Strategy{target.Single, target.Double}[r.IntN(2)]
	configure := kms.ConfigureRotationRequest{
		TargetName:    s.name,
		Strategy:      string(s.strategy),
		GracePeriod:   map[target.Strategy]string{target.Single: "0s", target.Double: "1h"}[s.strategy],
		AccountName:   app,
		LoginDatabase: named,
	}
	if s.strategy == target.Double {
		create(app+"-clone", "another-password-of-"+s.name)
		configure.CloneAccountName = app + "-clone"
	}
	s.attach = func() (string, error) { return p.configure(t, s.first, configure) }
	s.app = applications.New(applications.Config{Kind: "rabbitmq", Address: b.AMQP, Database: vhost, Name: s.name})
	s.also = func(ctx context.Context, value string, out outcome) error {
		a, err := applications.Parse(value)
		if err == nil {
			out["account"], err = b.account(ctx, a.AccountName)
		}
		return err
	}
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
