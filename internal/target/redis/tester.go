package redis

import (
	"context"

	"github.com/keyturn/keyturn/internal/target"
)

var _ target.Tester = (*server)(nil)

// Test tries what a rotation needs at every node: the administrator's login, and the commands that
// read, change and save users.
func (s *server) Test(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nodes, err := s.connect(ctx)
	defer closeAll(nodes)
	if err != nil {
		return err
	}
	f := &target.Findings{}
	if err := s.checkAdministrator(ctx, f, nodes); err != nil {
		return target.WithAdvice(err, s.toRead(err), s.admin.Secret)
	}
	if len(f.List) == 0 {
		return nil
	}
	missing := f.List[0]
	denied := target.Denied.Errorf("test the administrator: %s", missing.Text).AfterLogin()
	return target.WithAdvice(denied, missing.Fix, s.admin.Secret)
}
