package cli

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
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

// TestProbeResults verifies that the exit status is 0 only if all that was asked about is live, and
// that what was not asked about says why.
func TestProbeResults(t *testing.T) {
	t.Parallel()
	now := time.Now()
	live := kms.ListedRotation{
		SecretName:       "app",
		State:            "done",
		TargetName:       "pg",
		CredentialState:  "live",
		ProbeTime:        now,
		ProbeAttemptTime: now,
	}
	with := func(change func(*kms.ListedRotation)) kms.ListedRotation {
		r := live
		r.SecretName = "other"
		change(&r)
		return r
	}
	key := with(func(r *kms.ListedRotation) {
		r.TargetName, r.CredentialState, r.ProbeSkipped = "ram", "unknown", "It is an access key."
	})
	changing := with(func(r *kms.ListedRotation) { r.State, r.ProbeSkipped = "applying", "It is being changed." })
	stuck := with(func(r *kms.ListedRotation) { r.State, r.ProbeSkipped = "quarantined", "It is quarantined." })
	dead := with(func(r *kms.ListedRotation) {
		r.State, r.CredentialState, r.ProbeSkipped = "quarantined", "dead", "It is quarantined."
	})
	silent := with(func(r *kms.ListedRotation) { r.ProbeAttemptTime = now.Add(time.Minute) })
	for name, tt := range map[string]struct {
		asked, skipped int
		rows           []kms.ListedRotation
		ok             bool
		want           []string
	}{
		"all live": {2, 0, []kms.ListedRotation{live, live}, true, []string{"\n2 checked, 0 skipped: 2 live.\n"}},
		"an access key": {
			1, 1, []kms.ListedRotation{live, key}, true,
			[]string{"It is an access key.", "1 skipped: 1 live."},
		},
		"a change":    {1, 1, []kms.ListedRotation{live, changing}, true, []string{"skipped", "It is being changed."}},
		"quarantined": {1, 1, []kms.ListedRotation{live, stuck}, false, []string{"skipped", "It is quarantined."}},
		"known dead":  {1, 1, []kms.ListedRotation{live, dead}, false, []string{"1 skipped: 1 dead, 1 live."}},
		"without answer": {
			2, 0, []kms.ListedRotation{live, silent}, false,
			[]string{"2 checked, 0 skipped: 1 live, 1 no answer."},
		},
	} {
		asked := &kms.ProbeRotationResponse{Asked: tt.asked, NotAsked: tt.skipped}
		p, out := probing(t, "table", asked, "", answers(rotationsOf(tt.rows...)))
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
	if err == nil || !strings.Contains(err.Error(), "after 300ms: the server has answered at ") {
		t.Errorf("a server that stops answering: %v", err)
	}
	if !strings.Contains(out.String(), "not asked yet") {
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
