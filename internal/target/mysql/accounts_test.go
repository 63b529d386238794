package mysql

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// hosted returns an account at a host with passwords of mysql_native_password.
func hosted(t *testing.T, host string, passwords ...sensitive.Value) account {
	a := hashed(t, native, passwords...)
	a.host = host
	return a
}

// TestMembers verifies which accounts of a name one credential stands for.
func TestMembers(t *testing.T) {
	t.Parallel()
	mine, other := hosted(t, "%", oldPassword), hosted(t, "10.%", otherPassword)
	second := hosted(t, "::1", newPassword)
	unread := account{host: "::2", methods: []method{{"parsec", "x"}}}
	for _, tt := range []struct {
		name string
		h    hosts
		all  []account
		want []string
		err  error
	}{
		{"one, with another password", nil, []account{other}, []string{"10.%"}, nil},
		{"the other application's stays", nil, []account{mine, other}, []string{"%"}, nil},
		{"one has the new password already", nil, []account{mine, other, second}, []string{"%", "::1"}, nil},
		{"chosen", hosts{"all"}, []account{mine, other}, []string{"%", "10.%"}, nil},
		{"none of several", nil, []account{other, other}, nil, errSeveral},
		{"one that may have the password", nil, []account{mine, unread}, nil, errUnread},
		{"one that may have it, and is chosen", hosts{"all"}, []account{mine, unread}, []string{"%", "::2"}, nil},
	} {
		got, err := members(tt.h, tt.all, oldPassword, newPassword)
		var at []string
		for _, a := range got {
			at = append(at, a.host)
		}
		const command = `keyturn target update TARGET --set 'account_host=["`
		if err != nil && (!strings.Contains(err.Error(), command) || !strings.Contains(err.Error(), tt.all[1].host)) {
			t.Errorf("%s: %q names not the command and the hosts", tt.name, err)
		}
		if !errors.Is(err, tt.err) || !slices.Equal(at, tt.want) {
			t.Errorf("%s: %v, %v; want %v, %v", tt.name, at, err, tt.want, tt.err)
		}
	}
}

// TestPartialChange verifies that a change that has reached some accounts only counts as not made,
// so that it is sent again.
func TestPartialChange(t *testing.T) {
	t.Parallel()
	locked := hosted(t, "%", newPassword)
	locked.locked = true
	for _, tt := range []struct {
		name string
		all  []account
		want [2]target.Liveness // of the candidate and of the base
	}{
		{"before", []account{hosted(t, "%", oldPassword), hosted(t, "::1", oldPassword)},
			[2]target.Liveness{target.Dead, target.Live}},
		{"single, half", []account{hosted(t, "%", oldPassword), hosted(t, "::1", newPassword)},
			[2]target.Liveness{target.Dead, target.Live}},
		{"overlap, half", []account{hosted(t, "%", oldPassword, newPassword), hosted(t, "::1", oldPassword)},
			[2]target.Liveness{target.Dead, target.Live}},
		{"single, whole", []account{hosted(t, "%", newPassword), hosted(t, "::1", newPassword)},
			[2]target.Liveness{target.Live, target.Dead}},
		{"overlap, whole", []account{hosted(t, "%", oldPassword, newPassword), hosted(t, "::1", newPassword, oldPassword)},
			[2]target.Liveness{target.Live, target.Live}},
		{"another application", []account{hosted(t, "%", newPassword), hosted(t, "::1", otherPassword)},
			[2]target.Liveness{target.Live, target.Dead}},
		{"locked", []account{locked}, [2]target.Liveness{target.NotKnown, target.Dead}},
		{"none", nil, [2]target.Liveness{target.Dead, target.Dead}},
	} {
		got := liveness(tt.all, []sensitive.Value{newPassword, oldPassword})
		if !slices.Equal(got, tt.want[:]) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
