package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// memory is a target in this process: accounts and the passwords that they have. It is for what the
// API does around a target; what a target must do itself is tested with real ones.
type memory struct {
	mu        sync.Mutex
	passwords map[string]sensitive.Value // guarded by mu
	down      bool                       // guarded by mu
	admin     target.Credential          // guarded by mu; of the last time that it was opened
	tried     map[string]int             // guarded by mu; logins by account
	login     target.Login               // guarded by mu; of the last time that it was opened
	answer    error                      // guarded by mu; what it says to a login that is right
	findings  []target.Finding           // guarded by mu; what it says of an account
	asked     target.CheckRequest        // guarded by mu; what it was asked last
	during    func()                     // guarded by mu; runs during each check of an account
	verifying func()                     // called during the next login; guarded by mu
	refusal   error                      // guarded by mu; of a question about an account
	checks    int                        // guarded by mu
	// inspections are the refused questions about the target's own state; guarded by mu
	inspections int
}

func newMemory(accounts ...string) *memory {
	m := &memory{passwords: map[string]sensitive.Value{}, tried: map[string]int{}}
	for i := 0; i < len(accounts); i += 2 {
		m.passwords[accounts[i]] = sensitive.New(accounts[i+1])
	}
	return m
}

// kinds are those that a server with this target has: memory, which needs an administrator, and
// open, which needs none.
func (m *memory) kinds() []target.Kind {
	k := target.Kind{
		Name: "memory", NeedsAdmin: true, Strategies: []target.Strategy{target.Single, target.Double},
		Check: func(raw json.RawMessage) error {
			var c struct {
				Address string `json:"address"`
				Moved   bool   `json:"moved"`
			}
			if err := target.Decode(raw, &c); err != nil {
				return err
			}
			if c.Address == "" {
				return errors.New("address is required")
			}
			return nil
		},
		Open: func(s target.Settings) (target.Target, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.admin, m.login = s.Admin, s.Login
			return m, nil
		},
		Addresses: func(raw json.RawMessage) []string {
			if strings.Contains(string(raw), `"moved"`) {
				return []string{"new:1"}
			}
			return []string{"db:1", "standby:1"}
		},
		Endpoints: func(raw json.RawMessage) target.EndpointList {
			if strings.Contains(string(raw), `"moved"`) {
				return target.WritersAt([]string{"new:1"})
			}
			return target.EndpointList{
				{Address: "db:1", Role: target.Writer},
				{Address: "standby:1", Role: target.Replica, Lag: target.DefaultLag},
			}
		},
		Canonical: func(_ json.RawMessage, account string) string { return strings.ToLower(account) },
	}.Following(target.LoginEndpoints, target.LoginDatabase, target.LoginCertificate).
		Consenting("change-plugin", "change-auth-plugin")
	free := k
	free.Name, free.NeedsAdmin, free.Strategies = "open", false, []target.Strategy{target.Overlap}
	broken := k
	broken.Name, broken.Open = "broken", func(target.Settings) (target.Target, error) {
		return nil, errors.New("no driver for it")
	}
	return []target.Kind{k, free, broken}
}

func (m *memory) opened() target.Credential {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.admin
}

// logins is how many logins of an account were tried.
func (m *memory) logins(account string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tried[account]
}

func (m *memory) set(account, password string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.passwords[account] = sensitive.New(password)
}

func (m *memory) Apply(_ context.Context, c target.Change) error {
	m.set(c.New.Account, c.New.Secret.Reveal())
	return nil
}

func (m *memory) Retire(_ context.Context, c target.Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.passwords, c.Old.Account)
	return nil
}

func (m *memory) Verify(_ context.Context, c target.Credential) error {
	m.mu.Lock()
	during := m.verifying
	m.verifying = nil
	m.mu.Unlock()
	if during != nil {
		during()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tried[c.Account]++
	switch p, ok := m.passwords[c.Account]; {
	case m.down:
		return target.Failed(target.Unreachable, "", "connect: connection refused")
	case !ok || !p.Equal(c.Secret):
		return target.Failed(target.Rejected, "28P01", "log in as "+c.Account+": password authentication failed")
	}
	return m.answer
}

// CheckAccount answers with findings, or as Verify does when it is down.
func (m *memory) CheckAccount(_ context.Context, r target.CheckRequest) ([]target.Finding, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.during != nil {
		m.during()
	}
	m.asked = r
	m.checks++
	switch {
	case m.refusal != nil:
		return nil, m.refusal
	case m.down:
		return nil, target.Failed(target.Unreachable, "", "connect: connection refused")
	}
	return m.findings, nil
}

// says sets what the target says of accounts, and to logins that are right.
func (m *memory) says(answer error, findings ...target.Finding) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer, m.findings = answer, findings
}

// meanwhile sets what happens during each check of an account.
func (m *memory) meanwhile(during func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.during = during
}

// inLogin sets what happens during the next login.
func (m *memory) inLogin(during func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verifying = during
}

// refuses sets the error of each question about an account.
func (m *memory) refuses(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refusal = err
}

// checked is how often the target was asked about an account.
func (m *memory) checked() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checks
}

// followed returns the settings of logins with which the target was opened last, and the request
// of the last check.
func (m *memory) followed() (target.Login, target.CheckRequest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.login, m.asked
}

func (m *memory) Close() error { return nil }
