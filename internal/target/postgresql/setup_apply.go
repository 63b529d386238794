package postgresql

import (
	"context"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// plan returns what a caller may read of the statements: they run as the administrator, so the
// caller need not be one who may read the values of an application's settings.
func (s *setup) plan() target.Plan {
	p := target.Plan{Request: s.request, Owner: s.owner, Others: s.others}
	for database, statements := range s.moves {
		p.Steps = append(p.Steps, target.PlanStep{Database: database, Statements: statements})
	}
	slices.SortFunc(p.Steps, func(a, b target.PlanStep) int { return strings.Compare(a.Database, b.Database) })
	if len(s.shared) > 0 {
		at := 0
		if s.first {
			at = len(p.Steps)
		}
		step := target.PlanStep{Database: s.t.config.Database, Statements: concealed(s.shared, s.request.Account)}
		p.Steps = slices.Insert(p.Steps, at, step)
	}
	if len(p.Steps) > 0 {
		p.Notes = s.notes
	}
	if len(s.lacks.settings) > 0 {
		p.Notes = append([]string{s.lacks.note()}, p.Notes...)
	}
	return p
}

// ApplyPlan plans again under the account's lock, and continues only when the two plans are equal.
// With the password of the account, it compares what the account can do before and after.
func (t *pg) ApplyPlan(ctx context.Context, p target.Plan) error {
	what := "make two logins from " + p.Request.Account
	current := p.Request.Current
	if p.Request.Undo || current.IsZero() || len(p.Steps) == 0 {
		_, err := t.carryOut(ctx, what, p)
		return err
	}
	databases, _, err := t.toCompare(ctx, what, p.Request, current)
	if err != nil {
		return err
	}
	before, err := t.views(ctx, what, databases, current)
	if err != nil {
		return err
	}
	renamed, err := t.carryOut(ctx, what, p)
	if err != nil {
		return err
	}
	after, err := t.views(ctx, what, databases, current)
	if err != nil {
		return err
	}
	for database, v := range before {
		then := after[database]
		if renamed != "" {
			v, then = v.called(renamed, current.Account), then.called(renamed, current.Account)
		}
		if differ := v.changes(then); len(differ) > 0 {
			return target.Failed(target.Denied, "", what+" "+inDatabase(database)+
				": afterwards "+current.Account+" differs from before in "+listed(differ), current.Secret)
		}
	}
	return nil
}

// carryOut returns the role, if any, that has the account's name afterwards.
func (t *pg) carryOut(ctx context.Context, what string, p target.Plan) (renamed string, err error) {
	s, err := t.setup(ctx, p.Request)
	if err != nil {
		return "", err
	}
	defer s.close()
	s.what = what
	now := s.plan()
	if len(now.Steps) == 0 {
		return "", s.rollback(ctx)
	}
	if was, is := statementsOf(p), statementsOf(now); !slices.Equal(was, is) {
		return "", s.refuse("the server is not as it was when this was planned; plan again. Planned then: %s; "+
			"planned now: %s", apart(was, is), apart(is, was))
	}
	if s.first {
		// The moves take the same lock.
		if err := s.rollback(ctx); err != nil {
			return "", err
		}
		if err := t.moveAll(ctx, s); err != nil {
			return "", err
		}
		if err := s.begin(ctx, p.Request.Account); err != nil {
			return "", err
		}
	}
	if err := s.runShared(ctx); err != nil || s.first {
		return "", err
	}
	return s.renamed, t.moveAll(ctx, s)
}

// statementsOf returns all statements of a plan, with their databases.
func statementsOf(p target.Plan) (all []string) {
	for _, step := range p.Steps {
		for _, statement := range step.Statements {
			all = append(all, statement+" "+inDatabase(step.Database))
		}
	}
	return all
}

// apart returns the first statement that only one of two plans has.
func apart(has, lacks []string) string {
	at := slices.IndexFunc(has, func(s string) bool { return !slices.Contains(lacks, s) })
	if at < 0 {
		return "nothing else"
	}
	return has[at]
}

// runShared runs the statements on roles, and commits.
func (s *setup) runShared(ctx context.Context) error {
	s.secrets = append(s.secrets, sensitive.New(s.verifier))
	for _, statement := range s.shared {
		if before, ok := strings.CutSuffix(statement, shownVerifier); ok {
			statement = before + quoteLiteral(s.verifier)
		}
		if err := s.run(ctx, statement); err != nil {
			return s.lacks.advised(statement, err, s.secrets...)
		}
	}
	return s.end(ctx, "COMMIT")
}

// moveAll runs the statements in each database, in one transaction for each.
func (t *pg) moveAll(ctx context.Context, s *setup) error {
	for database, statements := range s.moves {
		a, err := t.asAdminOf(ctx, s.what+": "+inDatabase(database), database)
		if err != nil {
			return err
		}
		err = a.moveIn(ctx, s.request.Account, statements)
		a.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *attempt) moveIn(ctx context.Context, account string, statements []string) error {
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
