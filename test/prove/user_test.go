package prove

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
)

// user is the application of one secret, as the oracle runs it.
type user struct {
	secret string
	stated []string // work that may differ
	login  applications.Client
	// libraries and programs are the clients of the application; a program costs a process.
	libraries, programs []applications.Client
	// before is what each client could do before the first rotation.
	before map[string]applications.Outcome
	// one is held by the program that runs: its migrations are for one session at a time.
	one sync.Mutex
}

// Of a hundred turns that many are for a program, and up to that many for a library; the others
// log in and do nothing.
const (
	programTurns = 5
	libraryTurns = 25
)

// client picks the client of a turn. release ends its turn.
func (u *user) client(turn int) (c applications.Client, release func()) {
	n := rand.New(rand.NewPCG(uint64(turn), 0)).IntN(100)
	if n < programTurns && len(u.programs) > 0 && u.one.TryLock() {
		return u.programs[n%len(u.programs)], u.one.Unlock
	}
	if n < libraryTurns && len(u.libraries) > 0 {
		return u.libraries[n%len(u.libraries)], func() {}
	}
	return u.login, func() {}
}

// meet learns what the application of a secret can do before the first rotation.
func (w *watcher) meet(s watched) error {
	app := applications.New(applications.Config(s.Door))
	u := &user{secret: s.Secret, stated: s.Stated, before: map[string]applications.Outcome{}}
	u.login = applications.Client{
		Name: applications.Login,
		Work: func(ctx context.Context, value string) (applications.Outcome, error) {
			in, err := app.Login(ctx, value)
			if in {
				return applications.Outcome{applications.Login: applications.In}, err
			}
			return applications.Outcome{applications.Login: "rejected"}, err
		},
	}
	value, err := w.client.GetSecretValue(context.Background(), &kms.GetSecretValueRequest{SecretName: s.Secret})
	if err != nil {
		return err
	}
	for _, c := range app.Clients {
		out, err := c.Work(context.Background(), value.SecretData.Reveal())
		if err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		if out[applications.Login] != applications.In {
			return fmt.Errorf("%s is not let in before the first rotation: %s", c.Name, out[applications.Login])
		}
		u.before[c.Name] = out
		if c.Program {
			u.programs = append(u.programs, c)
		} else {
			u.libraries = append(u.libraries, c)
		}
	}
	w.users = append(w.users, u)
	return nil
}
