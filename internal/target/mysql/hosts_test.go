package mysql_test

import (
	"context"
	"crypto/rand"
	"database/sql/driver"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
)

// from is the key of the client's address in a context; the default is 127.0.0.1.
type from struct{}

// dialFrom connects from the address in the context, so that a server sees another client host.
func dialFrom(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	if ip, ok := ctx.Value(from{}).(string); ok {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(ip)}
	}
	return d.DialContext(ctx, network, address)
}

// loggedIn is how a server names the account that a login from an address reaches; empty when it is
// rejected.
func loggedIn(t *testing.T, f fixture, ip string, c target.Credential) string {
	t.Helper()
	ctx := context.WithValue(t.Context(), from{}, ip)
	conn, err := f.connect(ctx, c)
	if in, err := login(conn, err); err != nil || !in {
		if err != nil {
			t.Fatal(err)
		}
		return ""
	}
	conn, err = f.connect(ctx, c)
	targettest.Must(t, err)
	defer conn.Close()
	rows, err := conn.(driver.QueryerContext).QueryContext(t.Context(), "SELECT CURRENT_USER()", nil)
	targettest.Must(t, err)
	defer rows.Close()
	values := make([]driver.Value, 1)
	targettest.Must(t, rows.Next(values))
	return fmt.Sprintf("%s", values[0])
}

// opens asserts which accounts a credential opens from two addresses.
func opens(t *testing.T, f fixture, when string, c target.Credential, want1, want2 bool) {
	t.Helper()
	got := [2]string{loggedIn(t, f, "127.0.0.1", c), loggedIn(t, f, "127.0.0.2", c)}
	want := [2]string{}
	if want1 {
		want[0] = c.Account + "@%"
	}
	if want2 {
		want[1] = c.Account + "@127.0.0.2"
	}
	if got != want {
		t.Fatalf("%s: logins from two hosts reach %q, want %q", when, got, want)
	}
}

// testHosts rotates a name that has an account for every host and one for 127.0.0.2.
func testHosts(t *testing.T, f fixture, open func(*testing.T, ...string) target.Target) {
	password := func() target.Credential {
		c, err := target.PasswordRule{}.Generate(t.Context(), "hosts-"+rand.Text()[:8], target.Credential{}, rand.Reader)
		targettest.Must(t, err)
		return c
	}
	create := func(c target.Credential, host string) {
		f.exec(t, fmt.Sprintf("CREATE USER '%s'@'%s' IDENTIFIED BY '%s'", c.Account, host, c.Secret.Reveal()))
	}
	set := func(c target.Credential, host string) {
		f.exec(t, fmt.Sprintf("ALTER USER '%s'@'%s' IDENTIFIED BY '%s'", c.Account, host, c.Secret.Reveal()))
	}
	tt := open(t)
	inspector := tt.(target.Inspector)
	begin := func(s target.Strategy) target.Change {
		old := password()
		create(old, "%")
		create(old, "127.0.0.2")
		return target.Change{ID: "x", Strategy: s, Old: old, New: next(t, tt, old)}
	}
	inspects := func(when string, c target.Change, want ...target.Liveness) {
		t.Helper()
		got, err := inspector.Inspect(targettest.Within(t), []target.Credential{c.New, c.Old})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%s: Inspect = %v, %v; want %v", when, got, err, want)
		}
	}

	t.Run("overlap", func(t *testing.T) {
		c := begin(target.Overlap)
		opens(t, f, "before", c.Old, true, true)
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		inspects("after Apply", c, target.Live, target.Live)
		opens(t, f, "after Apply", c.New, true, true)
		opens(t, f, "after Apply", c.Old, true, true)
		targettest.Must(t, tt.Retire(targettest.Within(t), c))
		opens(t, f, "after Retire", c.New, true, true)
		opens(t, f, "after Retire", c.Old, false, false)
		inspects("after Retire", c, target.Live, target.Dead)
	})
	t.Run("single, cut off in the middle", func(t *testing.T) {
		c := begin(target.Single)
		set(c.New, "127.0.0.2")
		inspects("in the middle", c, target.Dead, target.Live)
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		inspects("after Apply again", c, target.Live, target.Dead)
		opens(t, f, "after Apply again", c.New, true, true)
		opens(t, f, "after Apply again", c.Old, false, false)
	})
	t.Run("taken back", func(t *testing.T) {
		for _, s := range []target.Strategy{target.Single, target.Overlap} {
			c := begin(s)
			set(c.New, "127.0.0.2")
			if s == target.Overlap {
				one := open(t, `"account_host":"127.0.0.2"`)
				set(c.Old, "127.0.0.2")
				targettest.Must(t, one.Apply(targettest.Within(t), c))
			}
			inspects("in the middle", c, target.Dead, target.Live)
			targettest.Must(t, tt.(target.Reverter).Revert(targettest.Within(t), c))
			opens(t, f, "taken back", c.New, false, false)
			opens(t, f, "taken back", c.Old, true, true)
		}
	})
	t.Run("another application", func(t *testing.T) {
		old := password()
		other := password()
		other.Account = old.Account
		create(old, "%")
		create(other, "127.0.0.2")
		c := target.Change{ID: "x", Strategy: target.Single, Old: old, New: next(t, tt, old)}
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		opens(t, f, "after Apply", c.New, true, false)
		opens(t, f, "after Apply, the other application", other, false, true)
		// The name is then of two applications: a repair must not guess which one is meant.
		lost := target.Change{ID: "y", Strategy: target.Single, Old: next(t, tt, old), New: next(t, tt, old)}
		err := tt.Apply(targettest.Within(t), lost)
		targettest.Expect(t, err, target.Denied, `--set 'account_host=["%","127.0.0.2"]'`)
		opens(t, f, "after a refused Apply", c.New, true, false)
		all := open(t, `"account_host":"all"`)
		targettest.Must(t, all.Apply(targettest.Within(t), lost))
		opens(t, f, "with all hosts", lost.New, true, true)
	})
	t.Run("another password of the holder", func(t *testing.T) {
		// Where account_host names the account, an emergency removes that password; where it does not,
		// the sentence for the operator has the commands that do.
		for _, s := range []target.Strategy{target.Overlap, target.Double} {
			for _, named := range []bool{true, false} {
				c := begin(s)
				if s == target.Double {
					c.New = next(t, tt, f.account(t, "hosts-"+rand.Text()[:8]))
				}
				kept := next(t, tt, c.Old)
				set(kept, "127.0.0.2")
				system := tt
				if named {
					system = open(t, `"account_host":["%","127.0.0.2"]`)
				}
				targettest.Must(t, system.Apply(targettest.Within(t), c))
				var found target.Foreign
				err := system.(target.Evictor).RetireOrEvict(targettest.Within(t), c,
					func(_ context.Context, f target.Foreign) (bool, error) {
						found = f
						return f.Kind == target.ForeignFound, nil
					})
				targettest.Must(t, err)
				opens(t, f, string(s)+", the leaked one", c.Old, false, false)
				opens(t, f, string(s)+", the one that the holder has set", kept, false, !named)
				command := strings.Contains(found.Text, `update TARGET --set 'account_host=["%","127.0.0.2"]'`) &&
					strings.Contains(found.Text, "rotation emergency NAME")
				if command == named {
					t.Errorf("%s, named %t: %s", s, named, found.Text)
				}
			}
		}
	})
	t.Run("added during the grace period", func(t *testing.T) {
		old := password()
		create(old, "%")
		c := target.Change{ID: "x", Strategy: target.Overlap, Old: old, New: next(t, tt, old)}
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		create(old, "127.0.0.2")
		targettest.Must(t, tt.Retire(targettest.Within(t), c))
		opens(t, f, "after Retire", c.New, true, true)
		opens(t, f, "after Retire", c.Old, false, false)
	})
	t.Run("left out during the grace period", func(t *testing.T) {
		// The configuration is changed after the new password was set at both hosts.
		c := begin(target.Overlap)
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		narrow := open(t, `"account_host":"%"`)
		got, err := narrow.(target.Inspector).Inspect(targettest.Within(t), []target.Credential{c.New, c.Old})
		if err != nil || fmt.Sprint(got) != fmt.Sprint([]target.Liveness{target.Live, target.Live}) {
			t.Errorf("Inspect = %v, %v", got, err)
		}
		targettest.Must(t, narrow.Retire(targettest.Within(t), c))
		opens(t, f, "after Retire", c.New, true, true)
		opens(t, f, "after Retire", c.Old, false, false)

		c = begin(target.Overlap)
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		targettest.Must(t, narrow.(target.Reverter).Revert(targettest.Within(t), c))
		opens(t, f, "taken back", c.New, false, false)
		opens(t, f, "taken back", c.Old, true, true)
	})
	t.Run("left out with the previous password alone", func(t *testing.T) {
		for _, s := range []target.Strategy{target.Overlap, target.Double} {
			c := begin(s)
			if s == target.Double {
				c.New = next(t, tt, f.account(t, "hosts-"+rand.Text()[:8]))
			}
			narrow := open(t, `"account_host":"%"`)
			targettest.Must(t, narrow.Apply(targettest.Within(t), c))
			err := narrow.Retire(targettest.Within(t), c)
			targettest.Expect(t, err, target.Denied, `--set 'account_host=["%","127.0.0.2"]'`)
			opens(t, f, string(s)+", after a Retire that has failed", c.Old, false, true)
			leaked := c
			leaked.Emergency = true
			targettest.Must(t, narrow.Retire(targettest.Within(t), leaked))
			opens(t, f, string(s)+", in an emergency", c.Old, false, true)
		}
	})
	t.Run("double", func(t *testing.T) {
		old := password()
		create(old, "%")
		c := begin(target.Double)
		c.Old = old
		targettest.Must(t, tt.Apply(targettest.Within(t), c))
		opens(t, f, "after Apply", c.New, true, true)
		back := target.Change{ID: "y", Strategy: target.Double, Old: c.New, New: next(t, tt, old)}
		targettest.Must(t, tt.Apply(targettest.Within(t), back))
		targettest.Must(t, tt.Retire(targettest.Within(t), back))
		opens(t, f, "after Retire", c.New, false, false)
	})
	t.Run("no such host", func(t *testing.T) {
		c := begin(target.Single)
		err := open(t, `"account_host":["10.%","::1"]`).Apply(targettest.Within(t), c)
		targettest.Expect(t, err, target.Denied, "there are '"+c.Old.Account+"'@'%', '"+c.Old.Account+"'@'127.0.0.2'")
		opens(t, f, "after a denied Apply", c.Old, true, true)
	})
	if strings.Contains(fmt.Sprintf("%T", f), "mySQL") {
		return
	}
	t.Run("plugin that cannot be compared", func(t *testing.T) {
		c := begin(target.Single)
		f.exec(t, fmt.Sprintf("CREATE USER '%s'@'10.%%' IDENTIFIED VIA ed25519 USING "+
			"'GVycM1PNYy2URWCtSnWcrXKV9RSF2Riqk+B7EpGr7IE'", c.Old.Account))
		f.exec(t, fmt.Sprintf("UPDATE mysql.global_priv SET Priv = JSON_SET(Priv, '$.plugin', 'parsec') "+
			"WHERE User = '%s' AND Host = '10.%%'", c.Old.Account))
		err := tt.Apply(targettest.Within(t), c)
		targettest.Expect(t, err, target.Denied, "may accept the same password")
		opens(t, f, "after a refused Apply", c.Old, true, true)
		chosen := open(t, `"account_host":["%","127.0.0.2"]`)
		targettest.Must(t, chosen.Apply(targettest.Within(t), c))
		opens(t, f, "with chosen hosts", c.New, true, true)
	})
}

// testPlugins rotates accounts of MariaDB that log in by ed25519: they must do so afterwards.
func testPlugins(t *testing.T, n *node) {
	make := func() target.Credential {
		c := n.account(t, "")
		n.alter(t, c, "IDENTIFIED VIA ed25519 USING PASSWORD("+quote(c.Secret.Reveal())+")")
		return c
	}
	plugins := func(c target.Credential) string {
		text := n.query(t, "SELECT CONCAT_WS(' ', JSON_VALUE(Priv, '$.plugin'), JSON_EXTRACT(Priv, '$.auth_or')) "+
			"FROM mysql.global_priv WHERE User = "+quote(c.Account))
		return strings.TrimSuffix(text, " [{}]") // a list of the one
	}
	tt := n.open(t)
	single := target.Change{ID: "x", Strategy: target.Single, Old: make()}
	single.New = next(t, tt, single.Old)
	targettest.Must(t, tt.Verify(targettest.Within(t), single.Old))
	targettest.Must(t, tt.Apply(targettest.Within(t), single))
	targettest.Must(t, tt.Verify(targettest.Within(t), single.New))
	n.works(t, single.New, true)
	n.works(t, single.Old, false)
	if got := plugins(single.New); got != "ed25519" {
		t.Errorf("an account of ed25519 logs in by %s afterwards", got)
	}
	overlap := target.Change{ID: "x", Strategy: target.Overlap, Old: make()}
	overlap.New = next(t, tt, overlap.Old)
	targettest.Expect(t, tt.Apply(targettest.Within(t), overlap), target.Denied, "change-auth-plugin")
	n.works(t, overlap.Old, true)
	agreed := n.agreed(t, "change-auth-plugin")
	targettest.Must(t, agreed.Apply(targettest.Within(t), overlap))
	n.works(t, overlap.Old, true)
	n.works(t, overlap.New, true)
	// Undo retires the candidate.
	targettest.Must(t, agreed.Retire(targettest.Within(t), target.Change{
		ID: "y", Strategy: target.Overlap, Old: overlap.New, New: overlap.Old,
	}))
	n.works(t, overlap.New, false)
	n.works(t, overlap.Old, true)
	if got := plugins(overlap.Old); got != "ed25519" {
		t.Errorf("an account of ed25519 logs in by %s after undo", got)
	}
	targettest.Must(t, agreed.Apply(targettest.Within(t), overlap))
	targettest.Must(t, agreed.Retire(targettest.Within(t), overlap))
	n.works(t, overlap.Old, false)
	n.works(t, overlap.New, true)
	if got := plugins(overlap.New); got != "ed25519" {
		t.Errorf("an account of ed25519 logs in by %s after the grace period", got)
	}
	double := target.Change{ID: "x", Strategy: target.Double, Old: n.account(t, "")}
	unused := make()
	double.New = next(t, tt, unused)
	targettest.Must(t, tt.Apply(targettest.Within(t), double))
	n.works(t, double.New, true)
	back := target.Change{ID: "y", Strategy: target.Double, Old: double.New, New: next(t, tt, double.Old)}
	targettest.Must(t, tt.Apply(targettest.Within(t), back))
	targettest.Must(t, tt.Retire(targettest.Within(t), back))
	n.works(t, double.New, false)
	if got := plugins(unused); got != "ed25519" {
		t.Errorf("a retired account of ed25519 logs in by %s afterwards", got)
	}
}

// mySQLPlugins rotates an account of MySQL with each plugin and another number of rounds.
func mySQLPlugins(t *testing.T, n *mySQLNode) {
	tt := n.open(t)
	for _, plugin := range []string{"sha256_password", "caching_sha2_password"} {
		for _, s := range []target.Strategy{target.Overlap, target.Single} {
			old := n.account(t, "")
			n.exec(t, "ALTER USER "+mySQLQuote(old.Account)+"@'%' IDENTIFIED WITH "+plugin+" BY "+
				mySQLQuote(old.Secret.Reveal()))
			stored := func() string {
				return n.query(t, "SELECT CONCAT(plugin, ' ', IF(plugin = 'caching_sha2_password', "+
					"LEFT(authentication_string, 7), '')) FROM mysql.user WHERE User = "+mySQLQuote(old.Account))
			}
			before := stored()
			if plugin == "caching_sha2_password" && !strings.Contains(before, "$A$00A$") {
				t.Fatalf("the server does not store more rounds: %s", before)
			}
			c := target.Change{ID: "x", Strategy: s, Old: old, New: next(t, tt, old)}
			targettest.Must(t, tt.Apply(targettest.Within(t), c))
			n.works(t, c.New, true)
			if s == target.Overlap {
				n.works(t, c.Old, true)
				targettest.Must(t, tt.Retire(targettest.Within(t), c))
			}
			n.works(t, c.New, true)
			n.works(t, c.Old, false)
			if after := stored(); after != before {
				t.Errorf("the account is %q after %s, and was %q", after, s, before)
			}
		}
	}
}
