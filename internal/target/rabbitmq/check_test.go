package rabbitmq_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rabbitmq"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
)

func sha512Hash(password string) string {
	salt := "salt"
	sum := sha512.Sum512([]byte(salt + password))
	return base64.StdEncoding.EncodeToString(append([]byte(salt), sum[:]...))
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"api":"https://h:15671/","amqp":["amqps://h","amqps://[::1]:5"]}`: nil,
		`{"api":"http://h","amqp":["amqp://h"],"tls":{"off":true}}`:         nil,
		`{}`: {"api is required", "amqp is required"},
		`{"api":"http://h","amqp":["amqp://h"],"password_length":5}`:                {"api is http, which", "amqp is amqp, which sends secrets in clear; use amqps", "password_length"},
		`{"api":"https://h?x","amqp":["h:5671","amqps://u:p@h","amqps://h/vhost"]}`: {"api has a query", `"h:5671" does not begin with`, "amqp holds a user", "is more than host and port"},
		`{"api":"https://h","amqp":["amqps://h:0"]}`:                                {`"0" is not a port`},
		`{"api":"https://h","amqp":["amqps://h"],"tls":{"off":true}}`:               {"api is https and tls has off", "amqp is amqps and tls has off"},
		`{"api":"https://h","amqp":["amqps://h"],"whoami":true}`:                    {`there is no setting "whoami"`},
	} {
		err := rabbitmq.Kind().Check([]byte(config))
		if want == nil && err != nil || want != nil && err == nil {
			t.Errorf("%s: %v", config, err)
		}
		for _, text := range want {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v does not say %q", config, err, text)
			}
		}
	}
}

// TestOnlyAHashIsSent verifies that the API gets a salted hash, never the password, and the tags
// unchanged, also in the form of versions before 3.9.
func TestOnlyAHashIsSent(t *testing.T) {
	t.Parallel()
	puts := make(chan string, 2)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			b, _ := io.ReadAll(r.Body)
			puts <- string(b)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"name":"app","password_hash":"","tags":"a,b",`+
			`"hashing_algorithm":"rabbit_password_hashing_sha256"}`)
	}))
	defer s.Close()
	tt, err := rabbitmq.Kind().Open(target.Settings{
		Name:   "bus",
		Config: fmt.Appendf(nil, `{"api":%q,"amqp":["amqp://127.0.0.1"]}`, s.URL),
		Admin:  target.Credential{Account: "admin", Secret: sensitive.New("admin-password")},
	})
	if err != nil {
		t.Fatal(err)
	}
	app := target.Credential{Account: "app", Secret: sensitive.New("marker-password")}
	var hashes []string
	for range 2 {
		if err := tt.Apply(t.Context(), target.Change{ID: "c", Strategy: target.Single, Old: app, New: app}); err != nil {
			t.Fatal(err)
		}
		var body map[string]string
		text := <-puts
		if err := json.Unmarshal([]byte(text), &body); err != nil || strings.Contains(text, "marker") {
			t.Fatalf("the body has the password, or is not JSON: %v", err)
		}
		salted, err := base64.StdEncoding.DecodeString(body["password_hash"])
		if err != nil || len(salted) != 4+sha256.Size {
			t.Fatalf("password_hash has %d bytes, %v", len(salted), err)
		}
		if sum := sha256.Sum256(append(bytes.Clone(salted[:4]), "marker-password"...)); !bytes.Equal(
			sum[:],
			salted[4:],
		) {
			t.Error("the hash is of another password")
		}
		if body["tags"] != "a,b" || body["hashing_algorithm"] != "rabbit_password_hashing_sha256" || len(body) != 3 {
			t.Errorf("tags %q, algorithm %q, %d members", body["tags"], body["hashing_algorithm"], len(body))
		}
		hashes = append(hashes, body["password_hash"])
	}
	if hashes[0] == hashes[1] {
		t.Error("two hashes have the same salt")
	}
}

// TestUnknownHash verifies that a hash of an unknown algorithm is neither replaced without consent
// nor cleared.
func TestUnknownHash(t *testing.T) {
	t.Parallel()
	tt := fake(t, map[string]string{
		"/api/users/app": `{"name":"app","tags":[],"hashing_algorithm":"our_own","password_hash":"AAAAAAAA"}`,
	})
	c := target.Credential{Account: "app", Secret: sensitive.New("password-of-app")}
	const want = "impossible hash-not-known, needs-consent hash-changes, note no-permission"
	if got := found(t, tt, c, ""); got != want {
		t.Errorf("the check finds %q, want %q", got, want)
	}
	change := target.Change{ID: "c", Strategy: target.Double, Old: c, New: target.Credential{Account: "other"}}
	targettest.Expect(t, tt.Retire(t.Context(), change), target.Denied, "our_own", "clear it by hand")
}

// TestUnreadBroker verifies that a check asks for consent where the administrator may not read what
// an application's access depends on, and ends with an error where the broker does not answer.
func TestUnreadBroker(t *testing.T) {
	t.Parallel()
	c := target.Credential{Account: "app", Secret: sensitive.New("password-of-app")}
	request := target.CheckRequest{Current: c, Strategies: rabbitmq.Kind().Strategies}
	for path, want := range map[string]string{
		"":                "",
		"/api/parameters": "needs-consent links-not-read",
		"/api/nodes":      "needs-consent nodes-not-read",
	} {
		if got := found(t, fake(t, appWith(path, "403")), c, ""); got != want {
			t.Errorf("without %s: the check finds %q, want %q", path, got, want)
		}
		if path != "" {
			_, err := fake(t, appWith(path, "503")).(target.Checker).CheckAccount(targettest.Within(t), request)
			targettest.Expect(t, err, target.Unreachable, "503")
		}
	}
}

// TestParametersOfAnyForm verifies that a check reads parameters whose value is a list, such as a
// set of upstreams and what RabbitMQ makes of an empty object, and finds a link of the user in each
// form.
func TestParametersOfAnyForm(t *testing.T) {
	t.Parallel()
	c := target.Credential{Account: "app", Secret: sensitive.New("password-of-app")}
	for value, want := range map[string]string{
		`[]`:                                 "",
		`[{"upstream":"up"}]`:                "",
		`"text"`:                             "",
		`{"max-connections":5}`:              "",
		`{"uri":"amqp://app:p@other"}`:       "needs-consent links",
		`{"uri":["amqp://app:p@other"]}`:     "needs-consent links",
		`[{"src-uri":"amqp://app:p@other"}]`: "needs-consent links",
		`{"src":{"uri":"amqp://app:p@o"}}`:   "needs-consent links",
		`{"uri":"amqp://app2:p@other"}`:      "",
	} {
		parameters := fmt.Sprintf(`[{"component":"c","name":"n","vhost":"/","value":%s}]`, value)
		if got := found(t, fake(t, appWith("/api/parameters", parameters)), c, ""); got != want {
			t.Errorf("a parameter with the value %s: the check finds %q, want %q", value, got, want)
		}
	}
}

// appWith returns answers about the user app with the password password-of-app, and one answer
// more.
func appWith(path, answer string) map[string]string {
	return map[string]string{
		"/api/users/app": `{"name":"app","tags":[],"hashing_algorithm":"rabbit_password_hashing_sha512","password_hash":"` +
			sha512Hash("password-of-app") + `"}`,
		"/api/users/app/permissions": `[{"user":"app","vhost":"/","configure":"","write":"","read":""}]`,
		path:                         answer,
	}
}

// fake opens a target whose API gives the answers, by their paths: JSON, or a status. It has an
// empty list at any other path.
func fake(t *testing.T, answers map[string]string) target.Target {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := cmp.Or(answers[r.URL.Path], "[]")
		if status, err := strconv.Atoi(answer); err == nil {
			w.WriteHeader(status)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return targettest.Open(t, rabbitmq.Kind(), fmt.Sprintf(`{"api":%q,"amqp":["amqp://127.0.0.1"]}`, s.URL),
		target.Credential{Account: "keyturn", Secret: sensitive.New("password-of-keyturn")})
}

// TestUnreadUserOutlastsNothing verifies that a user which the administrator may not read is not
// shown as something that the holder of a leaked credential can use, and one that RabbitMQ's own
// database does not have is.
func TestUnreadUserOutlastsNothing(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		http.StatusForbidden: "impossible user-not-read",
		http.StatusNotFound:  "impossible not-internal outlasts",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"error":"no","reason":"no"}`)
		}))
		defer s.Close()
		tt := targettest.Open(t, rabbitmq.Kind(), fmt.Sprintf(`{"api":%q,"amqp":["amqp://127.0.0.1"]}`, s.URL),
			target.Credential{Account: "admin", Secret: sensitive.New("admin-password")})
		c := target.Credential{Account: "app", Secret: sensitive.New("marker-password")}
		if got := found(t, tt, c, ""); got != want {
			t.Errorf("status %d: the check finds %q, want %q", status, got, want)
		}
	}
}
