package messy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
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
		s.occupy = func(value string) func() { return b.occupy(vhost, value) }
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
	s.work = func(ctx context.Context, value string) (outcome, error) { return b.work(ctx, s.name, vhost, value) }
}

func (b *broker) open(vhost string, a pair) (*amqp.Connection, error) {
	return amqp.DialConfig("amqp://"+b.AMQP, amqp.Config{
		SASL:  []amqp.Authentication{&amqp.PlainAuth{Username: a.AccountName, Password: a.AccountPassword}},
		Vhost: vhost,
	})
}

// occupy keeps a connection open.
func (b *broker) occupy(vhost, value string) (release func()) {
	a, err := parse(value)
	if err != nil {
		return func() {}
	}
	conn, err := b.open(vhost, a)
	if err != nil {
		return func() {}
	}
	return func() { _ = conn.Close() }
}

// work is what the application does with the client library of RabbitMQ's makers.
func (b *broker) work(ctx context.Context, name, vhost, value string) (outcome, error) {
	a, err := parse(value)
	if err != nil {
		return nil, err
	}
	var conn *amqp.Connection
	// The broker counts a closed connection for a moment, also one of the product's.
	for range 20 {
		if conn, err = b.open(vhost, a); err == nil || !strings.Contains(err.Error(), "limit") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if said, ok := errors.AsType[*amqp.Error](err); ok {
		return outcome{"login": fmt.Sprintf("amqp: %d", said.Code)}, nil
	}
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	out := outcome{"login": loggedIn}
	for probe, f := range map[string]func(*amqp.Channel) error{
		"declares a queue": func(c *amqp.Channel) error {
			return second(c.QueueDeclare(name+"-queue", false, true, false, false, nil))
		},
		"declares a queue of others": func(c *amqp.Channel) error {
			return second(c.QueueDeclare("others-"+name, false, true, false, false, nil))
		},
		"publishes": func(c *amqp.Channel) error {
			return c.PublishWithContext(ctx, "amq.topic", name+".news", false, false, amqp.Publishing{Body: []byte("x")})
		},
	} {
		channel, err := conn.Channel()
		if err != nil {
			return nil, err
		}
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		out[probe] = "done"
		if f(channel) == nil { // publishing is not answered, so a call that is answered follows
			_ = channel.ExchangeDeclarePassive("amq.topic", "topic", true, false, false, false, nil)
		}
		_ = channel.Close()
		if said := <-closed; said != nil {
			out[probe] = fmt.Sprint(said.Code)
		}
	}
	out["account"], err = b.account(ctx, a.AccountName)
	return out, err
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
