package ssh_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/test/servers"
)

// TestOneLogin verifies that the calls of one step share a login of the administrator, and that a
// connection which has broken meanwhile is replaced.
func TestOneLogin(t *testing.T) {
	t.Parallel()
	s := servers.StartSSH(t)
	old, _ := keyAccount(t, s, "/bin/sh")
	p := targettest.NewProxy(t, s.Addr())
	tt := open(t, config(s, p.Addr()), admin(s))
	logins := func(want int) {
		t.Helper()
		if _, _, n := p.Passed(); n != want {
			t.Errorf("%d logins, want %d", n, want)
		}
	}
	step := func() {
		t.Helper()
		_, err := tt.(target.Guarded).Standing(targettest.Within(t), old.Account)
		targettest.Must(t, err)
		_, err = tt.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{old})
		targettest.Must(t, err)
		targettest.Must(t, tt.Apply(targettest.Within(t), change(t, tt, old)))
	}
	step()
	logins(1)
	p.Cut()
	step()
	logins(2)
}
