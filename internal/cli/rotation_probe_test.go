package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// probing returns a prober of a server that answers with these rotations, and what it prints.
func probing(
	t *testing.T, output string, asked *kms.ProbeRotationResponse, secret string, answer func(w http.ResponseWriter),
) (*prober, *bytes.Buffer) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
	t.Cleanup(server.Close)
	client, err := kms.NewClient(kms.Config{
		Endpoint:    server.URL,
		Credentials: sign.Credentials{AccessKeyID: "id", AccessKeySecret: sensitive.New("secret")},
		MaxAttempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	return &prober{
		env:    &env{ctx: t.Context(), globals: globals{Output: output}, stdout: &out, stderr: &out},
		client: client,
		in:     kms.PauseRotationRequest{SecretName: secret},
		asked:  asked,
	}, &out
}

func answers(response any) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _, _ = w.Write(wire.AppendJSON(nil, response)) }
}

func rotationsOf(list ...kms.ListedRotation) *kms.ListRotationsResponse {
	return &kms.ListRotationsResponse{Rotations: list}
}

// TestProbeResults verifies that the exit status is 0 only if each credential was checked since the
// call and is live, apart from those that are left out, and that what was not checked counts as
// skipped and says why.
func TestProbeResults(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	live := kms.ListedRotation{
		SecretName:       "app",
		State:            "done",
		TargetName:       "pg",
		CredentialState:  "live",
		ProbeTime:        now.Add(time.Second),
		ProbeAttemptTime: now.Add(time.Second),
	}
	with := func(change func(*kms.ListedRotation)) kms.ListedRotation {
		r := live
		r.SecretName = "other"
		change(&r)
		return r
	}
	// before returns a rotation with the result of an earlier probe.
	before := func(change func(*kms.ListedRotation)) kms.ListedRotation {
		return with(func(r *kms.ListedRotation) {
			r.ProbeTime, r.ProbeAttemptTime = now.Add(-time.Hour), now.Add(-time.Hour)
			change(r)
		})
	}
	dead := before(func(r *kms.ListedRotation) {
		r.State, r.CredentialState, r.ProbeSkipped = "quarantined", "dead", "It is quarantined."
		r.ProbeSkippedCode = kms.SkippedQuarantined
	})
	silent := with(func(r *kms.ListedRotation) { r.ProbeAttemptTime = now.Add(time.Minute) })
	busy := with(func(r *kms.ListedRotation) { r.ProbeSkipped, r.ProbeSkippedCode = "Too many.", kms.SkippedThrottled })
	lost := with(func(r *kms.ListedRotation) { // without a target, each check that is due ends so
		r.CredentialState, r.ProbeTime = "unknown", time.Time{}
		r.ProbeSkipped, r.ProbeSkippedCode = "No target.", kms.SkippedNotBound
	})
	missed := before(func(*kms.ListedRotation) {})
	type results struct {
		rows []kms.ListedRotation
		ok   bool
		want []string
	}
	tests := map[string]results{
		"all live": {[]kms.ListedRotation{live, live}, true, []string{"\n2 checked, 0 skipped: 2 live.\n"}},
		"the last probe of an allowance": {
			[]kms.ListedRotation{live, busy}, true,
			[]string{"\n2 checked, 0 skipped: 2 live.\n"},
		},
		"known dead": {[]kms.ListedRotation{live, dead}, false, []string{"\n1 checked, 1 skipped: 1 dead, 1 live.\n"}},
		"without answer": {
			[]kms.ListedRotation{live, silent}, false,
			[]string{"\n2 checked, 0 skipped: 1 live, 1 no answer.\n"},
		},
		"without a target": {
			[]kms.ListedRotation{live, lost}, false,
			[]string{"skipped", "No target.", "\n1 checked, 1 skipped: 1 live.\n"},
		},
		"no longer skipped": {
			[]kms.ListedRotation{live, missed}, false,
			[]string{"skipped", "repeat the command", "\n1 checked, 1 skipped: 1 live.\n"},
		},
	}
	for _, k := range kms.ProbeSkips {
		row := before(func(r *kms.ListedRotation) { r.ProbeSkippedCode, r.ProbeSkipped = k.Code, "Cause: "+k.Text })
		tests["skipped: "+k.Code] = results{
			[]kms.ListedRotation{live, row},
			!k.Unknown,
			[]string{"skipped", "Cause: " + k.Text, "\n1 checked, 1 skipped: 1 live.\n"},
		}
	}
	for name, tt := range tests {
		p, out := probing(t, "table", &kms.ProbeRotationResponse{AskTime: now}, "", answers(rotationsOf(tt.rows...)))
		if err := p.follow(time.Minute); (err == nil) != tt.ok {
			t.Errorf("%s: %v", name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: printed\n%swant %q", name, out, want)
			}
		}
	}
}

// TestSkippedProbesAreDocumented verifies that the help of the command and docs/rotation.md have
// each cause for which a credential is skipped, and the exit status that follows.
func TestSkippedProbesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "rotation.md"))
	if err != nil {
		t.Fatal(err)
	}
	passing, failing, _ := strings.Cut((&rotationProbe{}).Help(), "The exit status is 1")
	for _, k := range kms.ProbeSkips {
		help, status := passing, 0
		if k.Unknown {
			help, status = failing, 1
		}
		if !strings.Contains(help, k.Text) {
			t.Errorf("the help of the command lacks %q for the exit status %d", k.Text, status)
		}
		if row := fmt.Sprintf("| `%s` | %s | %d |\n", k.Code, k.Text, status); !strings.Contains(string(page), row) {
			t.Errorf("docs/rotation.md lacks the row %s", row)
		}
	}
}

// TestProbeOfOneThatIsSkipped verifies that the exit status of one credential that was not asked
// about is not 0, although an earlier probe found it live, and that programs learn why.
func TestProbeOfOneThatIsSkipped(t *testing.T) {
	t.Parallel()
	now := time.Now()
	before := &kms.DescribeRotationResponse{
		SecretName:       "app",
		State:            "grace", // it was being changed when it was to be asked about
		CredentialState:  "live",
		ProbeTime:        now,
		ProbeAttemptTime: now,
	}
	asked := &kms.ProbeRotationResponse{NotAsked: 1, Reason: "It is being changed."}
	for output, want := range map[string][]string{
		"table": {"skipped", "It is being changed.\n", "\n0 checked, 1 skipped.\n"},
		"json":  {`"Asked": 0`, `"NotAsked": 1`, `"Reason": "It is being changed."`, `"SecretName": "app"`},
	} {
		p, out := probing(t, output, asked, "app", answers(before))
		if err := p.follow(time.Minute); err == nil {
			t.Errorf("%s: the exit status is 0", output)
		}
		for _, text := range want {
			if !strings.Contains(out.String(), text) {
				t.Errorf("%s: printed\n%swant %q", output, out, text)
			}
		}
	}
}

// TestProbeWithoutAnswer verifies what the command says of a server that stops answering, or never
// answers.
func TestProbeWithoutAnswer(t *testing.T) {
	t.Parallel()
	pending := kms.ListedRotation{SecretName: "app", State: "done", CredentialState: "live", ProbePending: true}
	asked := &kms.ProbeRotationResponse{Asked: 1}
	gone := func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	n := 0
	p, out := probing(t, "table", asked, "", func(w http.ResponseWriter) {
		if n++; n > 1 {
			gone(w)
			return
		}
		answers(rotationsOf(pending))(w)
	})
	err := p.follow(300 * time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "after 300ms: the server last answered at ") {
		t.Errorf("a server that stops answering: %v", err)
	}
	if !strings.Contains(out.String(), "\n0 checked, 0 skipped, 1 not asked yet.\n") {
		t.Errorf("a server that stops answering: printed\n%s", out)
	}
	p, out = probing(t, "table", asked, "", gone)
	err = p.follow(100 * time.Millisecond)
	if err == nil || !strings.HasPrefix(err.Error(), "the server has not answered within 100ms: ") || out.Len() > 0 {
		t.Errorf("a server that never answers: %v, printed\n%s", err, out)
	}
	p, _ = probing(t, "table", asked, "", answers(rotationsOf(pending)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.ctx = ctx
	if err = p.follow(time.Minute); err == nil || !strings.HasPrefix(err.Error(), "interrupted; ") {
		t.Errorf("interrupted: %v", err)
	}
}
