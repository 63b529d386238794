package rabbitmq_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rabbitmq"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
)

// tagged makes a user with tags.
func (n *node) tagged(t *testing.T, tags ...string) target.Credential {
	t.Helper()
	c := n.account(t)
	body, err := json.Marshal(map[string]any{"password": c.Secret.Reveal(), "tags": tags})
	if err != nil {
		t.Fatal(err)
	}
	n.api(t, http.MethodPut, "/api/users/"+url.PathEscape(c.Account), string(body))
	return c
}

// standing tells the suite about the users of the node.
func (n *node) standing() *targettest.Standing {
	return &targettest.Standing{
		Others:     []string{"Keyturn", "keyturn ", " keyturn", `"keyturn"`, "keyturn@%", "%6Beyturn"},
		Privileged: func(t *testing.T) string { return n.tagged(t, "kept", "administrator").Account },
		Trace: func(t *testing.T, account string) string {
			stored := n.api(t, http.MethodGet, "/api/users/"+url.PathEscape(account), "")
			return stored + n.api(t, http.MethodGet, "/api/users/"+url.PathEscape(account)+"/permissions", "")
		},
	}
}

// tags verifies which tags make a user privileged.
func (n *node) tags(t *testing.T) {
	g := n.plain(t).(target.Guarded)
	for tag, want := range map[string]bool{
		"administrator": true,
		"policymaker":   true,
		"monitoring":    false,
		"management":    false,
		"impersonator":  false,
		"Administrator": false,
	} {
		got, err := g.Standing(t.Context(), n.tagged(t, "other", tag).Account)
		if err != nil || got.Administrator || (got.Privileged != "") != want {
			t.Errorf("tag %s: %+v, %v; want privileged: %v", tag, got, err, want)
		}
	}
	for _, account := range []string{"", ".", ".."} {
		if got, err := g.Standing(t.Context(), account); target.ClassOf(err) != target.Denied {
			t.Errorf("%q: %+v, %v of class %v, want denied", account, got, err, target.ClassOf(err))
		}
	}
}

// standingWithoutRights asks as users who may not read others.
func (n *node) standingWithoutRights(t *testing.T) {
	account := n.tagged(t, "administrator").Account
	targettest.Must(t, n.plain(t).(target.Tester).Test(t.Context()))
	for _, tag := range []string{"management", "monitoring", "policymaker"} {
		admin := n.tagged(t, tag)
		tt, err := rabbitmq.Kind().Open(target.Settings{
			Name:   "bus",
			Config: fmt.Appendf(nil, `{"api":"http://%s","amqp":["amqp://%s"]}`, n.API, n.AMQP),
			Admin:  admin,
		})
		if err != nil {
			t.Fatal(err)
		}
		targettest.Expect(t, tt.(target.Tester).Test(t.Context()), target.Denied, "set_user_tags")
		got, err := tt.(target.Guarded).Standing(t.Context(), account)
		if target.ClassOf(err) != target.Denied || !strings.Contains(err.Error(), "rabbitmqctl set_user_tags") {
			t.Errorf("with tag %s: %+v, %v of class %v, want denied", tag, got, err, target.ClassOf(err))
		}
	}
}

// TestStandingByTagsAsText reads tags as RabbitMQ before version 3.9 sends them, and refuses what
// are no tags.
func TestStandingByTagsAsText(t *testing.T) {
	t.Parallel()
	for tags, want := range map[string]string{
		`"monitoring,administrator"`:  "privileged",
		`"monitoring, policymaker"`:   "privileged",
		`"monitoring,administrators"`: "ordinary",
		`""`:                          "ordinary",
		`[]`:                          "ordinary",
		`{"administrator":true}`:      "denied",
		`7`:                           "denied",
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"name":"app","tags":`+tags+`}`)
		}))
		defer s.Close()
		tt, err := rabbitmq.Kind().Open(target.Settings{
			Name:   "bus",
			Config: fmt.Appendf(nil, `{"api":%q,"amqp":["amqp://127.0.0.1"]}`, s.URL),
			Admin:  target.Credential{Account: "keyturn", Secret: sensitive.New("password-of-keyturn")},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := tt.(target.Guarded).Standing(t.Context(), "app")
		is := "ordinary"
		switch {
		case err != nil:
			is = target.ClassOf(err).String()
		case got.Privileged != "":
			is = "privileged"
		}
		if is != want {
			t.Errorf("tags %s: %s (%+v, %v), want %s", tags, is, got, err, want)
		}
	}
}
