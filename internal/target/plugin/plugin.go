// Package plugin is the protocol between Keyturn and a user's own program that changes credentials:
// the requests, the permitted answers, and the meaning of each answer. The kinds webhook and
// command carry it; docs/plugin.md describes it for authors of such programs.
package plugin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Version is the number of the protocol; every request has it.
const Version = 1

// MaxAnswer is the length of the longest answer that is read, in bytes.
const MaxAnswer = 64 << 10

// Step is one thing that a plug-in does.
type Step string

// The steps. Each is idempotent; all but Set and Retire change nothing. Generate and Check are
// asked of a plug-in only where the configuration says that it has them.
const (
	Set      Step = "set"
	Verify   Step = "verify"
	Retire   Step = "retire"
	State    Step = "state"
	Generate Step = "generate"
	Check    Step = "check"
)

// Settings are the members of a kind's configuration that concern the plug-in.
type Settings struct {
	// Strategy is the one that the plug-in implements: single, overlap or double.
	Strategy target.Strategy `json:"strategy"`
	// Generate says that the plug-in makes new credentials itself, with the step generate.
	// Otherwise they are passwords by the rule.
	Generate bool `json:"generate,omitempty"`
	// Checks says that the plug-in has the step check.
	Checks bool `json:"check,omitempty"`
	target.PasswordRule
}

// Check returns every mistake.
func (s Settings) Check() error {
	var errs []error
	switch s.Strategy {
	case target.Single, target.Overlap, target.Double:
	case "":
		errs = append(
			errs,
			errors.New("strategy is required, the one that the plug-in implements: single, overlap or double"),
		)
	default:
		errs = append(errs, fmt.Errorf("strategy %q is none of single, overlap and double", s.Strategy))
	}
	if s.Generate && s.PasswordRule != (target.PasswordRule{}) {
		errs = append(
			errs,
			errors.New(
				"generate leaves the credential's form to the plug-in; leave password_length and "+
					"password_punctuation out",
			),
		)
	}
	return errors.Join(append(errs, s.PasswordRule.Check())...)
}

// Target calls a plug-in. It implements [target.Target], [target.Inspector], [target.Generator],
// [target.Limited], [target.Checker] and [target.Windower].
type Target struct {
	Settings Settings
	// Name is the name under which the target is registered.
	Name string
	// Admin is the member admin of each request if Pass is set.
	Admin target.Credential
	Pass  bool
	// Call carries a request to the plug-in and returns its answer, or a [*target.Error] that says
	// why there is no answer.
	Call func(ctx context.Context, step Step, request []byte, secrets []sensitive.Value) (Answer, error)

	mu     sync.Mutex
	window string // guarded by mu; the window in the last answer to the step check
}

// Answer is a plug-in's answer, as its transport delivered it.
type Answer struct {
	// JSON is the body.
	JSON []byte
	// Proven says that the plug-in has proved its identity. If it is false, callers may read
	// nothing of the answer but its result, and verdicts and codes of findings.
	Proven bool
	// MayBeOK is false where the transport itself reports that the step did not succeed, for
	// example by an HTTP status.
	MayBeOK bool
	// Code is the transport's own code of the outcome, such as HTTP 401. It serves when the body has
	// no code.
	Code string
	// Said is the plug-in's output besides the answer, without secrets. It serves when the body has
	// no message.
	Said string
}

type request struct {
	Protocol    int             `json:"protocol"`
	Step        Step            `json:"step"`
	Target      string          `json:"target"`
	Attempt     string          `json:"attempt"`
	ChangeID    string          `json:"change_id,omitempty"`
	Strategy    target.Strategy `json:"strategy"`
	Account     string          `json:"account,omitempty"`
	Partner     string          `json:"partner,omitempty"`
	New         *credential     `json:"new,omitempty"`
	Old         *credential     `json:"old,omitempty"`
	Credentials []*credential   `json:"credentials,omitempty"`
	Admin       *credential     `json:"admin,omitempty"`
}

type credential struct {
	Account string `json:"account"`
	Secret  string `json:"secret"`
	ID      string `json:"id,omitempty"`
	Public  string `json:"public,omitempty"`
}

type reply struct {
	Result     string      `json:"result"`
	Code       string      `json:"code"`
	Message    string      `json:"message"`
	States     []string    `json:"states"`
	Credential *credential `json:"credential"`
	Findings   []finding   `json:"findings"`
	Window     string      `json:"window"`
}

// Strategies returns the one strategy of this target.
func (t *Target) Strategies() []target.Strategy { return []target.Strategy{t.Settings.Strategy} }

// Close has nothing to release: every call closes its own connection or process.
func (t *Target) Close() error { return nil }

// Apply is the step set.
func (t *Target) Apply(ctx context.Context, c target.Change) error { return t.change(ctx, Set, c) }

// Retire is the step retire.
func (t *Target) Retire(ctx context.Context, c target.Change) error { return t.change(ctx, Retire, c) }

func (t *Target) change(ctx context.Context, step Step, c target.Change) error {
	if c.Strategy != t.Settings.Strategy {
		return target.Denied.Errorf(
			"%s of target %s: its strategy is %s, not %s", step, t.Name, t.Settings.Strategy, c.Strategy,
		)
	}
	_, err := t.ask(
		ctx,
		request{
			Step:     step,
			ChangeID: c.ID,
			Account:  c.New.Account,
			New:      wire(c.New),
			Old:      wire(c.Old),
		},
	)
	return err
}

// Verify is the step verify.
func (t *Target) Verify(ctx context.Context, c target.Credential) error {
	_, err := t.ask(ctx, request{Step: Verify, Account: c.Account, New: wire(c)})
	return err
}

// Inspect is the step state.
func (t *Target) Inspect(ctx context.Context, credentials []target.Credential) ([]target.Liveness, error) {
	if len(credentials) == 0 {
		return nil, nil
	}
	r := request{Step: State, Account: credentials[0].Account}
	for _, c := range credentials {
		r.Credentials = append(r.Credentials, wire(c))
	}
	answer, err := t.ask(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(answer.States) != len(credentials) {
		return nil, t.malformed(
			State, Answer{}, fmt.Sprintf("%d states for %d credentials", len(answer.States), len(credentials)),
		)
	}
	out := make([]target.Liveness, len(credentials))
	for i, s := range answer.States {
		switch s {
		case "live":
			out[i] = target.Live
		case "dead":
			out[i] = target.Dead
		case "unknown":
		default:
			return nil, t.malformed(State, Answer{}, fmt.Sprintf("state %d is none of live, dead and unknown", i+1))
		}
	}
	return out, nil
}

// Generate is the step generate where the plug-in has it, and a password by the rule otherwise.
func (t *Target) Generate(
	ctx context.Context, account string, old target.Credential, random io.Reader,
) (target.Credential, error) {
	if !t.Settings.Generate {
		return t.Settings.PasswordRule.Generate(ctx, account, old, random)
	}
	answer, err := t.ask(ctx, request{Step: Generate, Account: account, Old: wire(old)})
	if err != nil {
		return target.Credential{}, err
	}
	c := answer.Credential
	switch {
	case c == nil || c.Secret == "":
		return target.Credential{}, t.malformed(Generate, Answer{}, "no credential with a secret")
	case c.Account != "" && c.Account != account:
		return target.Credential{}, t.malformed(Generate, Answer{}, "a credential of another account")
	case c.Secret == old.Secret.Reveal():
		return target.Credential{}, t.malformed(Generate, Answer{}, "the credential that is in use")
	}
	return target.Credential{
		Account: account,
		Secret:  sensitive.New(c.Secret),
		ID:      c.ID,
		Public:  c.Public,
	}, nil
}

func wire(c target.Credential) *credential {
	if c.IsZero() {
		return nil
	}
	return &credential{
		Account: c.Account,
		Secret:  c.Secret.Reveal(),
		ID:      c.ID,
		Public:  c.Public,
	}
}

// ask sends one request and judges the answer.
func (t *Target) ask(ctx context.Context, r request) (reply, error) {
	// Every request has its own attempt, so that a plug-in can recognize a replayed request.
	r.Protocol, r.Target, r.Strategy, r.Attempt = Version, t.Name, t.Settings.Strategy, rand.Text()
	if t.Pass {
		r.Admin = wire(t.Admin)
	}
	var secrets []sensitive.Value
	for _, c := range append(r.Credentials, r.New, r.Old, r.Admin) {
		if c != nil {
			secrets = append(secrets, parts(c.Secret)...)
		}
	}
	if !t.Admin.Secret.IsZero() {
		secrets = append(secrets, parts(t.Admin.Secret.Reveal())...)
	}
	body, err := encode(r)
	if err != nil {
		return reply{}, target.Denied.Errorf(
			"%s of target %s: an account or credential is not valid UTF-8, which JSON cannot carry", r.Step, t.Name,
		)
	}
	answer, err := t.Call(ctx, r.Step, body, secrets)
	if err != nil {
		return reply{}, err
	}
	out, err := t.judge(r.Step, answer, secrets)
	if err != nil {
		return reply{}, err
	}
	if wrong := out.readFindings(r, answer.Proven, secrets); wrong != "" {
		return reply{}, t.malformed(r.Step, answer, wrong)
	}
	return out, nil
}

// parts returns a secret and its lines, if it has several, such as a private key: a plug-in may
// quote one of them.
func parts(secret string) []sensitive.Value {
	out := []sensitive.Value{sensitive.New(secret)}
	if lines := strings.Fields(secret); len(lines) > 1 {
		for _, l := range lines {
			if len(l) >= minPart {
				out = append(out, sensitive.New(l))
			}
		}
	}
	return out
}

// minPart is the length of the shortest line that counts as a secret: shorter ones would take
// ordinary words of an answer with them.
const minPart = 12

var errNotUTF8 = errors.New("not valid UTF-8")

// encode returns the request in JSON, without escapes for <, > and &. It refuses text that is not
// UTF-8, because encoding/json would silently replace it and the plug-in would set another secret.
func encode(r request) ([]byte, error) {
	for _, c := range append(r.Credentials, r.New, r.Old, r.Admin) {
		if c != nil && strings.ToValidUTF8(c.Account+c.Secret+c.ID+c.Public, "") != c.Account+c.Secret+c.ID+c.Public {
			return nil, errNotUTF8
		}
	}
	if !utf8.ValidString(r.Partner) {
		return nil, errNotUTF8
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return b.Bytes(), err
}

// meaning has the class of each result other than ok, and the steps that may return it. Another
// result counts as no answer.
var meaning = map[string]struct {
	class target.Class
	steps string
}{
	"refused":     {target.Refused, "set"},
	"rejected":    {target.Rejected, "verify"},
	"admitted":    {target.Admitted, "verify"},
	"unclear":     {target.Unclear, "verify"},
	"denied":      {target.Denied, "set verify retire state generate check"},
	"unavailable": {target.Unreachable, "set verify retire state generate check"},
	"unknown":     {target.Unknown, "set verify retire state generate check"},
}

func (t *Target) judge(step Step, a Answer, secrets []sensitive.Value) (reply, error) {
	var r reply
	d := json.NewDecoder(bytes.NewReader(a.JSON))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return reply{}, t.malformed(step, a, "not the JSON object of the protocol")
	}
	if _, err := d.Token(); err != io.EOF {
		return reply{}, t.malformed(step, a, "more than one JSON object")
	}
	if r.Result == "ok" {
		if !a.MayBeOK {
			return reply{}, t.malformed(step, a, "ok, but the transport says that it failed")
		}
		return r, nil
	}
	m, ok := meaning[r.Result]
	if !ok || !strings.Contains(m.steps, string(step)) {
		result := fmt.Sprintf("result %q", target.Said(r.Result, secrets...))
		if a.Proven {
			return reply{}, t.malformed(step, a, result+", which this step does not have")
		}
		e := t.malformed(step, a, "a result that this step does not have")
		e.Detail = result
		return reply{}, e
	}
	text := fmt.Sprintf("%s of target %s: %s", step, t.Name, r.Result)
	if !a.Proven {
		e := target.Failed(m.class, target.Said(a.Code, secrets...), text, secrets...)
		e.Detail = target.Said(r.Message+" "+r.Code, secrets...)
		return reply{}, e
	}
	if r.Message != "" {
		text += ": " + target.Said(r.Message, secrets...)
	} else if a.Said != "" {
		text += ": " + a.Said
	}
	if r.Code == "" {
		r.Code = a.Code
	}
	return reply{}, target.Failed(m.class, target.Said(r.Code, secrets...), text, secrets...)
}

// malformed returns the error for an answer that breaks the protocol: the effect may or may not
// have happened.
func (t *Target) malformed(step Step, a Answer, what string) *target.Error {
	text := fmt.Sprintf("%s of target %s: the plug-in's answer is %s", step, t.Name, what)
	if a.Said != "" {
		text += ": " + a.Said
	}
	return target.Failed(target.Unknown, a.Code, text)
}
