package rabbitmq_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rabbitmq"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// openAs opens a target for the secret of an application.
func (n *node) openAs(t *testing.T, login target.Login, consent ...string) target.Target {
	t.Helper()
	tt, err := rabbitmq.Kind().Open(target.Settings{
		Name:    "bus",
		Config:  fmt.Appendf(nil, `{"api":"http://%s","amqp":["amqp://%s"]}`, n.API, n.AMQP),
		Admin:   n.admin,
		Login:   login,
		Consent: consent,
	})
	targettest.Must(t, err)
	t.Cleanup(func() { _ = tt.Close() })
	return tt
}

// admitted verifies that a refusal after the login proves the password, and only the right one.
func (n *node) admitted(t *testing.T) {
	tt := n.plain(t)
	c := n.account(t)
	path := url.PathEscape(c.Account)
	n.api(t, http.MethodPut, "/api/user-limits/"+path+"/max-connections", `{"value":1}`)
	session := n.session(t, c)
	targettest.Expect(t, tt.Verify(t.Context(), c), target.Admitted, "530")
	targettest.Expect(t, tt.Verify(t.Context(), with(c, "a-wrong-password")), target.Rejected, "403")
	targettest.Must(t, session())
	n.api(t, http.MethodPut, "/api/vhosts/full", "")
	n.api(t, http.MethodPut, "/api/permissions/full/"+path, `{"configure":"","write":"","read":""}`)
	n.api(t, http.MethodDelete, "/api/user-limits/"+path+"/max-connections", "")
	full := n.openAs(t, target.Login{Database: "full"})
	targettest.Must(t, full.Verify(t.Context(), c))
	n.api(t, http.MethodPut, "/api/vhost-limits/full/max-connections", `{"value":0}`)
	targettest.Expect(t, full.Verify(t.Context(), c), target.Admitted, "530")
	n.api(t, http.MethodDelete, "/api/permissions/full/"+path, "")
	targettest.Expect(t, full.Verify(t.Context(), c), target.Admitted, "530")
}

// application verifies that logins follow how the application connects.
func (n *node) application(t *testing.T) {
	c := n.account(t)
	targettest.Expect(t, n.openAs(t, target.Login{Database: "nowhere"}).Verify(t.Context(), c), target.Admitted, "530")
	targettest.Must(t, n.openAs(t, target.Login{Endpoints: []string{"amqp://" + n.AMQP}}).Verify(t.Context(), c))
	gone := n.openAs(t, target.Login{Endpoints: []string{"amqp://127.0.0.1:1"}})
	targettest.Expect(t, gone.Verify(t.Context(), c), target.Denied, "no login endpoint")
	kind := rabbitmq.Kind()
	config := fmt.Appendf(nil, `{"api":"http://%s","amqp":["amqp://%s","amqp://127.0.0.1:1"]}`, n.API, n.AMQP)
	want := []string{"amqp://" + n.AMQP, "amqp://127.0.0.1:1"}
	if got := kind.EndpointsOf(config).Addresses(); !slices.Equal(got, want) {
		t.Errorf("the endpoints are %q", got)
	}
	targettest.Must(t, kind.CheckLogin(target.Login{Database: "x", Endpoints: []string{"amqp://h"}}))
	if kind.CheckLogin(target.Login{Role: "x"}) == nil {
		t.Error("a role is taken, which RabbitMQ does not have")
	}
}

// found returns the verdict and the code of what a check finds.
func found(t *testing.T, tt target.Target, c target.Credential, partner string) string {
	t.Helper()
	return targettest.Codes(targettest.Findings(t, tt, target.CheckRequest{
		Current: c, Partner: partner, Strategies: rabbitmq.Kind().Strategies,
	}, "of-the-link"))
}

// checkAccount verifies what a check finds about users.
func (n *node) checkAccount(t *testing.T) {
	tt := n.plain(t)
	c, partner := n.account(t), n.account(t)
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: the check finds %q, want %q", what, got, want)
		}
	}
	const limit = "note connection-limit"
	expect("a user", found(t, tt, c, ""), limit)
	expect("two equal users", found(t, tt, c, partner.Account), limit)
	expect("a password of another backend", found(t, tt, with(c, "of-the-directory"), ""),
		"impossible password-elsewhere outlasts, "+limit)
	expect("no user", found(t, tt, target.Credential{Account: "missing", Secret: c.Secret}, ""),
		"impossible not-internal outlasts")
	expect("no partner", found(t, tt, c, "missing"), "impossible not-internal, "+limit)
	expect("another virtual host", found(t, n.openAs(t, target.Login{Database: "elsewhere"}), c, ""),
		limit+", note no-permission")
	for what, change := range map[string]func(path string){
		"permissions": func(path string) {
			n.api(t, http.MethodPut, "/api/permissions/%2F/"+path, `{"configure":".*","write":"","read":".*"}`)
		},
		"topic-permissions": func(path string) {
			n.api(t, http.MethodPut, "/api/topic-permissions/%2F/"+path,
				`{"exchange":"amq.topic","write":"a","read":".*"}`)
		},
		"limits": func(path string) {
			n.api(t, http.MethodPut, "/api/user-limits/"+path+"/max-connections", `{"value":3}`)
		},
	} {
		other := n.account(t)
		change(url.PathEscape(other.Account))
		expect(what, found(t, tt, c, other.Account), "needs-consent partner-differs, "+limit)
	}
	n.api(t, http.MethodPut, "/api/vhosts/narrow", "")
	for _, u := range []target.Credential{c, partner} {
		n.api(t, http.MethodPut, "/api/permissions/narrow/"+url.PathEscape(u.Account),
			`{"configure":"","write":"","read":""}`)
	}
	narrow := n.openAs(t, target.Login{Database: "narrow"})
	n.api(t, http.MethodPut, "/api/vhost-limits/narrow/max-connections", `{"value":1}`)
	expect("a virtual host with room", found(t, narrow, c, partner.Account), limit)
	n.api(t, http.MethodPut, "/api/vhost-limits/narrow/max-connections", `{"value":0}`)
	expect("a virtual host that is full", found(t, narrow, c, partner.Account), "impossible virtual-host-full, "+limit)
	other := url.PathEscape(partner.Account)
	n.api(t, http.MethodPut, "/api/user-limits/"+other+"/max-connections", `{"value":0}`)
	expect("a partner without a connection", found(t, tt, c, partner.Account),
		"impossible no-connection, needs-consent partner-differs, "+limit)
	n.api(t, http.MethodPut, "/api/user-limits/"+other+"/max-connections", `{"value":10}`)
	n.api(t, http.MethodDelete, "/api/permissions/%2F/"+other, "")
	expect("a partner that cannot open the virtual host", found(t, tt, c, partner.Account),
		"impossible no-permission, needs-consent partner-differs, "+limit)
	md5 := n.account(t)
	n.hashedByMD5(t, md5)
	expect("MD5", found(t, tt, md5, ""), "needs-consent hash-changes, "+limit)
	n.api(t, http.MethodPut, "/api/users/"+url.PathEscape(md5.Account), `{"password_hash":"","tags":""}`)
	expect("no password", found(t, tt, md5, ""), "impossible no-password, "+limit)
	link := target.Credential{Account: "linked", Secret: c.Secret}
	n.api(t, http.MethodPut, "/api/users/linked", fmt.Sprintf(`{"password":%q,"tags":""}`, c.Secret.Reveal()))
	n.api(t, http.MethodPut, "/api/permissions/%2F/linked", `{"configure":"","write":"","read":""}`)
	expect("no link", found(t, tt, link, ""), "")
	n.api(t, http.MethodPut, "/api/parameters/federation-upstream/%2F/up",
		`{"value":{"uri":["amqp://other.example","amqp://linked:password-of-the-link@other.example"]}}`)
	expect("a link", found(t, tt, link, ""), "needs-consent links")
	for _, s := range rabbitmq.Kind().Strategies {
		if window := tt.(target.Windower).Window(s); !strings.HasSuffix(window, ".") {
			t.Errorf("the window of %s is %q", s, window)
		}
	}
}
