package mysql

import (
	"context"
	"crypto/rand"

	"github.com/keyturn/keyturn/internal/target"
)

var _ target.Tester = (*my)(nil)

// Test tries what a rotation needs: the administrator's login, the tables that it reads, and the
// statement that changes an account, for one that does not exist.
func (t *my) Test(ctx context.Context) error {
	attempt := "test the administrator"
	conn, err := t.asAdmin(ctx, attempt, t.admin.Secret)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := &checker{t: t, conn: conn}
	var missing []string
	var denied error
	for _, table := range t.server.tables() {
		if _, err := conn.row(ctx, "SELECT 1 FROM "+table+" LIMIT 1"); err != nil {
			failed := readFailed(attempt, err, t.admin.Secret)
			if failed.Class != target.Denied {
				return failed
			}
			missing, denied = append(missing, "SELECT ON "+table), failed
		}
	}
	if denied != nil {
		statements, err := c.toAdministrator(ctx, missing)
		if err != nil {
			return readFailed(attempt, err, t.admin.Secret)
		}
		return target.WithAdvice(denied, statements, t.admin.Secret)
	}
	if err := c.server(ctx); err != nil {
		return readFailed(attempt, err, t.admin.Secret)
	}
	for _, f := range c.found {
		if f.Verdict == target.Impossible {
			return target.Denied.Errorf("%s: %s %s", attempt, f.Text, f.Fix)
		}
	}
	missingAccount := quotedAccount("keyturn-test-"+rand.Text()[:12], "%")
	err = conn.exec(ctx, "ALTER USER "+missingAccount+" ACCOUNT UNLOCK")
	if number, _, _ := numberOf(err); number == 1396 || err == nil {
		return nil // there is no such account, and the administrator may change it
	}
	return target.WithAdvice(changeFailed(attempt, err, t.admin.Secret),
		"GRANT CREATE USER ON *.* TO "+shownName(t.admin.Account), t.admin.Secret)
}
