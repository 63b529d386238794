package redis_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/targettest"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
)

// TestForeignNames verifies that what a node names is not shown as a command, and that redis-cli
// reads the commands of findings as they are meant.
func TestForeignNames(t *testing.T) {
	t.Parallel()
	s := servers.StartRedis(t)
	c := account(t, s)
	s.Do(t, "REPLICAOF", targettest.HostileCommand, "6379")
	targettest.Harmless(t, targettest.Findings(t, open(t, plain(s.Addr), admin(s)), target.CheckRequest{Current: c}))

	blind := target.Credential{Account: "a'\"`id`$(id)\x1b\\", Secret: sensitive.New("The-administrator's-2")}
	s.Do(t, "ACL", "SETUSER", blind.Account, "on", ">"+blind.Secret.Reveal(), "+ping")
	err := func() error {
		_, err := open(t, plain(s.Addr), blind).(target.Guarded).Standing(targettest.Within(t), c.Account)
		return err
	}()
	_, fix, _ := strings.Cut(fmt.Sprint(err), "users: ACL SETUSER ")
	if want := `"a'\"` + "`id`" + `$(id)\x1b\\" +acl|getuser`; fix != want {
		t.Errorf("the command is about %s; want %s", fix, want)
	}
}
