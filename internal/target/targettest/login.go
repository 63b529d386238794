package targettest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// logins are settings of an application's login that no server of a test can satisfy, one for each
// member.
var logins = map[target.LoginField]target.Login{
	target.LoginEndpoints: {Endpoints: []string{"no-such-host.invalid:1"}},
	target.LoginDatabase:  {Database: "no_such_database"},
	target.LoginRole:      {Role: "no_such_role"},
	target.LoginCertificate: {
		CertificateSecret: "no-certificate",
		Certificate:       sensitive.New("no certificate in PEM"),
	},
}

// follows verifies that each setting of an application's login is either followed or refused: a
// login that ignores one proves nothing of the application. A session that such a setting prevents
// never counts as a rejected credential, and a wrong credential never as an admitted one.
func (h Harness) follows(t *testing.T) {
	good := h.Account(t)
	wrong := h.wrong(t, good)
	followed := map[target.LoginField]bool{}
	for _, f := range h.Kind.Logins {
		followed[f] = true
	}
	for field, login := range logins {
		if !followed[field] {
			if h.Kind.CheckLogin(login) == nil {
				t.Errorf("%s is neither followed nor refused", field)
			}
			continue
		}
		err, opened := h.verifyAs(t, login, good)
		if class := target.ClassOf(err); err == nil || class == target.Rejected || class == target.Refused {
			t.Errorf("%s is not there: Verify of a good credential: %v of class %v", field, err, class)
		}
		h.secrets.absent(t, err)
		if !opened || target.ClassOf(err) != target.Admitted {
			continue
		}
		if err, _ := h.verifyAs(t, login, wrong); target.ClassOf(err) != target.Rejected {
			t.Errorf("%s is not there: Verify of a wrong credential: %v of class %v, want rejected",
				field, err, target.ClassOf(err))
		}
	}
	if !followed[target.LoginEndpoints] {
		return
	}
	at := h.Kind.EndpointsOf([]byte(h.Config(h.Addr))).Deciding()[0].Address
	if err, _ := h.verifyAs(t, target.Login{Endpoints: []string{at}}, good); err != nil {
		t.Errorf("at %s: %v", at, err)
	}
}

// verifyAs logs in as an application that connects in a certain way. opened is false where the
// target could not be opened for it.
func (h Harness) verifyAs(t *testing.T, l target.Login, c target.Credential) (err error, opened bool) {
	t.Helper()
	s := target.Settings{Name: "test", Config: []byte(h.Config(h.Addr)), Admin: h.Admin, Login: l}
	tt, err := h.Kind.Open(s)
	if err != nil {
		return target.Denied.Errorf("open: %v", err), false
	}
	defer func() { _ = tt.Close() }() // nothing is left to report
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return tt.Verify(ctx, c), true
}

// foreign are answers of services of other kinds, with which a port is sometimes taken.
var foreign = []string{
	"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
	"220 mail.example.test ESMTP\r\n",
	"\x00\x00\x00\x01\xff",
}

// otherService verifies that the answer of something else than the target is no verdict on a
// credential, and that a change there does not count as made or refused.
func (h Harness) otherService(t *testing.T) {
	h.overNetwork(t)
	c := h.change(t, h.Open(t, h.Addr), h.Kind.Strategies[0])
	for _, answer := range foreign {
		tt := h.Open(t, serve(t, answer))
		for what, call := range map[string]func(context.Context) error{
			"Apply":  func(ctx context.Context) error { return tt.Apply(ctx, c) },
			"Verify": func(ctx context.Context) error { return tt.Verify(ctx, c.Old) },
		} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			err := call(ctx)
			cancel()
			switch class := target.ClassOf(err); {
			case err == nil, class == target.Rejected, class == target.Admitted, class == target.Refused:
				t.Errorf("%s at a service that answers %q: %v of class %v", what, answer, err, class)
			}
			h.secrets.absent(t, err)
		}
	}
}

// serve answers each connection with a text after its first bytes, or after a moment without any.
func serve(t *testing.T, answer string) (addr string) {
	t.Helper()
	return support.Serve(t, func(conn net.Conn) {
		_ = conn.SetDeadline(time.Now().Add(patience / 4))
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write([]byte(answer))
		_, _ = conn.Read(make([]byte, 1<<10))
	}).String()
}
