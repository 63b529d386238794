// Package compat_test runs the official clients of the cloud against a real server on loopback,
// over TLS, and replays requests that official tools were seen to send. docs/compat.md keeps the
// results.
package compat_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	region    = "cn-hangzhou"
	account   = "1234567890123456"
	day       = 24 * time.Hour
	maxSecret = 30720 // bytes of SecretData
)

var (
	right     = sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("testsecret")}
	wrong     = sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("wrongsecret")}
	unknown   = sign.Credentials{AccessKeyID: "unknownid", AccessKeySecret: sensitive.New("testsecret")}
	requestID = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
)

// step is one call of testdata/scenario.json, which every client makes in the same order: what is
// sent and what must come back, field by field. Test code in other languages reads the same file.
type step struct {
	Op string
	// As is empty, "wrong secret" or "unknown key".
	As    string
	In    map[string]any
	Out   map[string]any
	Error *refusal
}

// refusal is an error as a client shows it.
type refusal struct {
	Status        int
	Code, Message string
	RequestID     string `json:"-"`
}

// caller makes one call through a client. in has the wire names of the reference; the client says
// how they travel. A refusal is an answer of the server; an error is anything else.
type caller interface {
	call(op string, in map[string]any) (map[string]any, *refusal, error)
}

// client is an official client in one of its modes.
type client struct {
	name string
	// connect makes a client with these credentials.
	connect func(t *testing.T, s *keyturntest.Server, c sign.Credentials) caller
	// strict says that the client shows the answer as it came, so that a member that must be there
	// can be missed.
	strict bool
	// only reports whether the mode is for an operation; nil means all.
	only func(op string) bool
}

// startFixed starts a server whose clock stands still at the present second: clients sign with
// the real time, and every time in an answer is known.
func startFixed(t *testing.T, at time.Time) *keyturntest.Server {
	t.Helper()
	return keyturntest.Start(t, keyturntest.WithRegion(region), keyturntest.WithAdmin(account, right),
		keyturntest.WithTime(func() time.Time { return at }))
}

// newRobot makes the user whose access key a secret of the scenario holds, and returns that key.
func newRobot(t *testing.T, s *keyturntest.Server) sign.Credentials {
	t.Helper()
	admin := ram.New(s.Client)
	if _, err := admin.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: "robot"}); err != nil {
		t.Fatal(err)
	}
	out, err := admin.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{UserName: "robot"})
	if err != nil {
		t.Fatal(err)
	}
	return sign.Credentials{AccessKeyID: out.AccessKey.AccessKeyID, AccessKeySecret: out.AccessKey.AccessKeySecret}
}

// play runs the scenario through a client and reports how much was compared.
func play(t *testing.T, c client) {
	now := time.Now().UTC().Truncate(time.Second)
	s := startFixed(t, now)
	callers := map[string]caller{
		"": c.connect(t, s, right), "wrong secret": c.connect(t, s, wrong), "unknown key": c.connect(t, s, unknown),
	}
	ops, calls, values := map[string]bool{}, 0, 0
	for i, st := range scenario(t, now, newRobot(t, s)) {
		if c.only != nil && !c.only(st.Op) {
			continue
		}
		p := &comparison{t: t, at: fmt.Sprintf("step %d, %s", i+1, st.Op), strict: c.strict}
		out, refused, err := callers[st.As].call(st.Op, st.In)
		switch {
		case err != nil:
			t.Fatalf("%s: %v", p.at, err)
		case st.Error != nil:
			p.refused(*st.Error, refused)
		case refused != nil:
			t.Errorf("%s: refused with %d %s: %s", p.at, refused.Status, refused.Code, clip(refused.Message))
		default:
			p.answered(st.Out, out)
		}
		ops[st.Op] = true
		calls++
		values += p.values
	}
	t.Logf("%s: %d operations, %d calls, %d values compared", c.name, len(ops), calls, values)
}

// scenario reads the steps and puts the values of this run into them.
func scenario(t *testing.T, now time.Time, robot sign.Credentials) []step {
	t.Helper()
	data, err := os.ReadFile("testdata/scenario.json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var steps []step
	if err := d.Decode(&steps); err != nil {
		t.Fatalf("testdata/scenario.json: %v", err)
	}
	full := awkward(maxSecret)
	fill := strings.NewReplacer(
		"${NOW}", now.Format(wire.TimeFormat),
		"${NOW+7d}", now.Add(7*day).Format(wire.TimeFormat),
		"${NOW+30d}", now.Add(30*day).Format(wire.TimeFormat),
		"${ACCOUNT}", account, "${REGION}", region, "${30KB}", full, "${30KB+1}", full+"x",
		"${ROBOT_KEY}", robot.AccessKeyID, "${ROBOT_SECRET}", robot.AccessKeySecret.Reveal(),
	)
	for i := range steps {
		steps[i].In = filled(steps[i].In, fill).(map[string]any)
		if steps[i].Out != nil {
			steps[i].Out = filled(steps[i].Out, fill).(map[string]any)
		}
	}
	return steps
}

// awkward is text of n bytes that every encoding on its way must treat with care.
func awkward(n int) string {
	const unit = "é~*+ /%\"中&=?#\n\t\\'<>"
	s := strings.Repeat(unit, n/len(unit))
	return s + strings.Repeat("x", n-len(s))
}

func filled(v any, r *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return r.Replace(v)
	case []any:
		for i := range v {
			v[i] = filled(v[i], r)
		}
	case map[string]any:
		for k := range v {
			v[k] = filled(v[k], r)
		}
	}
	return v
}

// comparison holds one answer against what the scenario wants.
type comparison struct {
	t      *testing.T
	at     string
	strict bool
	values int
}

func (p *comparison) refused(want refusal, got *refusal) {
	if got == nil {
		p.t.Errorf("%s: done; want it refused with %d %s", p.at, want.Status, want.Code)
		return
	}
	p.values += 4
	if got.Status != want.Status || got.Code != want.Code || !strings.HasPrefix(got.Message, want.Message) ||
		!requestID.MatchString(got.RequestID) {
		p.t.Errorf("%s: refused with %d %s %q, request %q; want %d %s %q", p.at, got.Status, got.Code,
			clip(got.Message), got.RequestID, want.Status, want.Code, want.Message)
	}
}

func (p *comparison) answered(want, got map[string]any) {
	id, _ := got["RequestId"].(string)
	if !requestID.MatchString(id) {
		p.t.Errorf("%s: RequestId %q is no version 4 UUID in lower case", p.at, id)
	}
	delete(got, "RequestId")
	p.values++
	p.same("", want, got)
}

// same compares two values. What is absent is as good as empty, because typed clients do not tell
// them apart; with strict set, what the scenario names must be there.
func (p *comparison) same(path string, want, got any) {
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok && (p.strict || !empty(want) || !empty(got)) {
			p.t.Errorf("%s%s: %T; want an object", p.at, path, got)
			return
		}
		for k, v := range want {
			if _, ok := g[k]; !ok && p.strict {
				p.t.Errorf("%s%s.%s: absent", p.at, path, k)
			}
			p.same(path+"."+k, v, g[k])
		}
		for k, v := range g {
			if _, ok := want[k]; !ok && !empty(v) {
				p.t.Errorf("%s%s.%s: there, with %s; want none", p.at, path, k, clip(fmt.Sprint(v)))
			}
		}
	case []any:
		g, _ := got.([]any)
		p.values++
		if len(g) != len(want) || p.strict && g == nil {
			p.t.Errorf("%s%s: %d items, %s; want %d", p.at, path, len(g), clip(fmt.Sprint(got)), len(want))
			return
		}
		for i := range want {
			p.same(fmt.Sprintf("%s[%d]", path, i), want[i], g[i])
		}
	default:
		p.values++
		if !equal(want, got) {
			p.t.Errorf("%s%s = %s; want %s", p.at, path, clip(fmt.Sprint(got)), clip(fmt.Sprint(want)))
		}
	}
}

func equal(want, got any) bool {
	text, _ := want.(string)
	if pattern, ok := strings.CutPrefix(text, "${MATCH:"); ok {
		s, isString := got.(string)
		return isString && regexp.MustCompile(strings.TrimSuffix(pattern, "}")).MatchString(s)
	}
	return want == got || empty(want) && empty(got)
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return !slices.ContainsFunc(values(v), func(v any) bool { return !empty(v) })
	}
	return false
}

func values(m map[string]any) []any {
	list := make([]any, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}

// text is a parameter as the one string that travels: JSON for lists and objects.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case map[string]any, []any:
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		_ = e.Encode(v) // decoded from JSON a moment ago
		return strings.TrimSpace(b.String())
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}

// asMap is what a typed answer holds, by wire name.
func asMap(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(data, &m)
}

// scenarioOps are the operations that the scenario calls.
func scenarioOps(t *testing.T) []string {
	t.Helper()
	var ops []string
	for _, st := range scenario(t, time.Now(), sign.Credentials{}) {
		ops = append(ops, st.Op)
	}
	slices.Sort(ops)
	return slices.Compact(ops)
}
