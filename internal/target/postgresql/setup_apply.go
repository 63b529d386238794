package postgresql

import (
	"context"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

func (s *setup) plan() target.Plan {
	p := target.Plan{Request: s.request}
	if len(s.shared) > 0 {
		p.Steps = append(p.Steps, target.PlanStep{Database: s.t.config.Database, Statements: s.shared})
	}
	var databases []string
	for database := range s.moves {
		databases = append(databases, database)
	}
	slices.Sort(databases)
	for _, database := range databases {
		p.Steps = append(p.Steps, target.PlanStep{Database: database, Statements: s.moves[database]})
	}
	if len(p.Steps) > 0 {
		p.Notes = s.notes
	}
	return p
}

// ApplyPlan plans again under the account's lock, and continues only when the two plans are equal.
func (t *pg) ApplyPlan(ctx context.Context, p target.Plan) error {
	s, err := t.setup(ctx, p.Request)
	if err != nil {
		return err
	}
	defer s.close()
	s.what = "make two logins from " + p.Request.Account
	now := s.plan()
	if len(now.Steps) == 0 {
		return s.rollback(ctx)
	}
	if !slices.EqualFunc(now.Steps, p.Steps, func(a, b target.PlanStep) bool {
		return a.Database == b.Database && slices.Equal(a.Statements, b.Statements)
	}) {
		return s.refuse("the server is not as it was when this was planned; plan again")
	}
	s.secrets = append(s.secrets, sensitive.New(s.verifier))
	for _, statement := range s.shared {
		if before, ok := strings.CutSuffix(statement, shownVerifier); ok {
			statement = before + quoteLiteral(s.verifier)
		}
		if err := s.run(ctx, statement); err != nil {
			return err
		}
	}
	if err := s.end(ctx, "COMMIT"); err != nil {
		return err
	}
	for _, step := range now.Steps {
		if statements := s.moves[step.Database]; strings.HasPrefix(step.Statements[0], "REASSIGN ") {
			if err := t.move(ctx, s.what, p.Request.Account, step.Database, statements); err != nil {
				return err
			}
		}
	}
	return nil
}

// move gives the objects that the logins own in one database to the owner.
func (t *pg) move(ctx context.Context, what, account, database string, statements []string) error {
	a, err := t.asAdminOf(ctx, what+": in database "+database, database)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.begin(ctx, account); err != nil {
		return err
	}
	for _, statement := range statements {
		if err := a.run(ctx, statement); err != nil {
			return err
		}
	}
	return a.end(ctx, "COMMIT")
}
