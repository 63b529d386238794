package demo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// recorder collects what a demo makes and says.
type recorder struct {
	mu   sync.Mutex
	out  bytes.Buffer
	made []string
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}

func (r *recorder) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

func (r *recorder) see(v sensitive.Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made = append(r.made, v.Reveal())
}

// secrets are the recorded values and the secret members of those that are secret data, line by
// line: a private key has several.
func (r *recorder) secrets() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.made)
	for _, value := range r.made {
		var members map[string]string
		if json.Unmarshal([]byte(value), &members) != nil {
			continue
		}
		for _, name := range []string{"AccountPassword", "PrivateKey", "Passphrase", "ClientSecret"} {
			for line := range strings.Lines(members[name]) {
				if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
					out = append(out, line)
				}
			}
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// show plays a demo that ends by itself, and fails the test unless its directory is empty
// afterwards.
func show(t *testing.T, o Options, h hooks) (*recorder, error) {
	t.Helper()
	r := &recorder{}
	h.dir, h.made, o.Out, o.Exit = t.TempDir(), r.see, r, true
	began := time.Now()
	err := play(t.Context(), o, h)
	if errors.Is(err, sandbox.ErrNoPostgres) || errors.Is(err, sandbox.ErrNoOpenSSH) {
		t.Skipf("skipped: %v", err)
	}
	t.Logf("played in %v", time.Since(began).Round(time.Millisecond))
	empty(t, h.dir)
	return r, err
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("%v is left behind (%v)", left, err)
	}
}

// fewRotations are enough to see each kind of step.
const fewRotations = 3

func TestRun(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"postgres", "openssh", "ssh", ""} {
		t.Run("target "+target, func(t *testing.T) {
			t.Parallel()
			h := hooks{rotations: fewRotations}
			if target == "" { // one plays all of it; what the demo has to hold is the same for all
				h.rotations = 0
			}
			r, err := show(t, Options{Target: target}, h)
			if err != nil {
				t.Fatalf("%v\n%s", err, r.text())
			}
			readable(t, r.text())
			secretive(t, r)
			steps(t, r.text())
			plausible(t, r.text(), cmp.Or(h.rotations, 20))
			if strings.Contains(r.text(), "TRY NEXT") || strings.Contains(r.text(), "\x1b") {
				t.Error("a demo that has ended invites to try it, or colours where none was asked for")
			}
		})
	}
}

// readable holds the text to a screenful or two and to a width; commands may be longer.
func readable(t *testing.T, text string) {
	t.Helper()
	lines := strings.Split(text, "\n")
	if len(lines) > 100 {
		t.Errorf("%d lines", len(lines))
	}
	for _, line := range lines {
		if !strings.Contains(line, "aliyun") && len([]rune(line)) > 100 || strings.TrimRight(line, " ") != line {
			t.Errorf("line %q is too long or ends in spaces", line)
		}
	}
}

func secretive(t *testing.T, r *recorder) {
	t.Helper()
	text, secrets := r.text(), r.secrets()
	// 2 passwords, 2 credentials of one member or more, 2 app secrets of one member, 1 access key
	// secret, and what was current in the secret of the engine.
	if len(secrets) < 12 {
		t.Errorf("only %d secret values were seen", len(secrets))
	}
	for i, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("the output holds secret value %d", i)
		}
	}
}

func steps(t *testing.T, text string) {
	t.Helper()
	for _, want := range []string{
		"v1 ACSPrevious, v2 ACSCurrent",
		"ACSCurrent v1, ACSPrevious none, MyPendingLabel v2",
		"a login with v2 works, one with v1 is refused",
		"ACSCurrent v2, ACSPrevious v1, MyPendingLabel none",
		"prepared   candidate-stored ", "applying   sending ", "applied    accepted ", "verified   logged-in ", "grace      promoted ",
		"done       retired ",
		"a login with v2 works, and one with v1 still does", "a login with v1 is refused",
		" failures, 0 refused at the first try",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the output lacks %q:\n%s", want, text)
		}
	}
	want := 17                                           // two in one step, twice
	if strings.Contains(text, "part 2    PostgreSQL ") { // where an administrator's secret is a step more
		want++
	}
	if n := strings.Count(text, "       ok  "); n != want || strings.Contains(text, "FAILED") {
		t.Errorf("%d steps are ok, want %d", n, want)
	}
}

func plausible(t *testing.T, text string, rotations int) {
	t.Helper()
	reads, logins := row(t, text, "reads"), row(t, text, "logins")
	recovered := row(t, text, "refused at the first try, then in")
	made := row(t, text, "rotations")
	if made != [3]int{1, rotations, 1} {
		t.Errorf("%v rotations, want %d by the engine", made, rotations)
	}
	for i := range logins {
		// The consumer settled on two versions of each secret, and came past every other.
		if least := 2*steadyLogins + made[i] - 1; logins[i] < least || reads[i] < logins[i] {
			t.Errorf("%d: %d logins after %d reads; want at least %d", i, logins[i], reads[i], least)
		}
	}
	if recovered[0] != 0 || recovered[1] != 0 || recovered[2] > logins[2] {
		t.Errorf("refused at first %v times of %v; want 0 where credentials overlap", recovered, logins)
	}
	for _, name := range []string{"failed reads", "failures (no login possible)"} {
		if got := row(t, text, name); got != [3]int{} {
			t.Errorf("%s: %v", name, got)
		}
	}
	trail := regexp.MustCompile(`audit trail: (\d+) records, chain verified`).FindStringSubmatch(text)
	if trail == nil {
		t.Fatalf("no word of the audit trail:\n%s", text)
	}
	if n, _ := strconv.Atoi(trail[1]); n <= reads[0]+reads[1]+reads[2] {
		t.Errorf("%d audit records for %v reads and more", n, reads)
	}
}

// row reads the numbers of one row of the table.
func row(t *testing.T, text, name string) (numbers [3]int) {
	t.Helper()
	found := regexp.MustCompile(`(?m)^  ` + regexp.QuoteMeta(name) + ` +(\d+) +(\d+) +(\d+)$`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("the table has no row %q:\n%s", name, text)
	}
	for i := range numbers {
		numbers[i], _ = strconv.Atoi(found[i+1])
	}
	return numbers
}

// faulty is a target that is not what it says.
type faulty struct {
	Target
	// from is the first registration that goes nowhere; 0 means none.
	from int
	// lenient accepts what the target rejects.
	lenient bool
	// unreachable says that logins are not answered.
	unreachable bool
	// blink is the login to the engine's account that is refused without a reason; 0 means none.
	blink int
	// keeps says that the engine's account goes on accepting what was retired.
	keeps bool

	mu            sync.Mutex
	calls, logins int
}

// Managed gives the engine's account the faults of its own.
func (f *faulty) Managed(ctx context.Context) (Managed, error) {
	m, err := f.Target.Managed(ctx)
	login := m.Login
	m.Login = func(ctx context.Context, data sensitive.Value) error {
		f.mu.Lock()
		f.logins++
		blink := f.logins == f.blink
		f.mu.Unlock()
		err := login(ctx, data)
		if blink {
			return ErrRejected
		}
		if f.keeps && errors.Is(err, ErrRejected) {
			return nil
		}
		return err
	}
	return m, err
}

func (f *faulty) Register(ctx context.Context, data sensitive.Value) error {
	f.mu.Lock()
	f.calls++
	skip := f.from > 0 && f.calls >= f.from
	f.mu.Unlock()
	if skip {
		return nil
	}
	return f.Target.Register(ctx, data)
}

func (f *faulty) Login(ctx context.Context, data sensitive.Value) error {
	if f.unreachable {
		return errors.New("nobody answers")
	}
	err := f.Target.Login(ctx, data)
	if f.lenient && errors.Is(err, ErrRejected) {
		return nil
	}
	return err
}

func TestFaultyTarget(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		target *faulty
		want   string
	}{
		"registers nothing": {&faulty{from: 1}, "step 3.1, create demo/account: login with v1: expected accepted, found refused by the target"},
		"stops registering": {&faulty{from: 2}, "step 3.4, register v2 in the target: login with v2: expected accepted, found refused by the target"},
		"keeps the old one": {&faulty{lenient: true}, "step 3.4, register v2 in the target: login with v1: expected refused by the target, found accepted"},
		"does not answer":   {&faulty{unreachable: true}, "step 3.1, create demo/account: login with v1: expected accepted, found nobody answers"},
		// The first logins are of the demo and of the consumer that settles.
		"refuses once":     {&faulty{blink: 4}, "step 2.5, rotate again and again: consumer of acs/ecs/demo: expected 0 failed reads, 0 failures, found 0 failed reads, 1 failures, the first: the target rejected the credential"},
		"keeps what ended": {&faulty{keeps: true}, "step 2.4, retire v1: login with v1: expected refused by the target, found accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := show(
				t,
				Options{Target: "ssh", Color: true},
				hooks{rotations: 2, wrap: func(target Target) Target {
					tt.target.Target = target
					return tt.target
				}},
			)
			if err == nil || err.Error() != "the demo does not hold: "+tt.want {
				t.Errorf("error %v\nwant %s", err, tt.want)
			}
			text := r.text()
			if !strings.Contains(text, red+"FAILED"+reset) || !strings.Contains(text, "expected  ") ||
				!strings.Contains(text, "found     ") {
				t.Errorf("the output does not show the failure:\n%s", text)
			}
			if strings.Contains(text, "Stopped; nothing is left behind") || strings.Contains(text, "held:") {
				t.Errorf("the output ends as if nothing had happened:\n%s", text)
			}
		})
	}
}

// A consumer of the engine's secret that was refused only for a moment is too much already.
func TestNoticedOnce(t *testing.T) {
	t.Parallel()
	p := &player{narrator: narrator{out: &recorder{}}, engines: Managed{Secret: "s"}}
	works(t, "nothing was noticed", p.expectUnnoticed(t.Context(), tally{reads: 9, logins: 9}))
	err := p.expectUnnoticed(t.Context(), tally{reads: 9, logins: 9, waits: []time.Duration{time.Millisecond}})
	if err == nil || !strings.Contains(err.Error(), "s: logins refused at the first try: expected 0, found 1") {
		t.Errorf("one was refused at first: %v", err)
	}
}

func TestUnknownTarget(t *testing.T) {
	t.Parallel()
	_, err := show(t, Options{Target: "mainframe"}, hooks{})
	if err == nil || !strings.Contains(err.Error(), `unknown target "mainframe": use postgres, openssh or ssh`) {
		t.Errorf("error %v", err)
	}
}

// shut is where nothing can be written.
type shut struct{}

func (shut) Write([]byte) (int, error) { return 0, errors.New("the pipe is closed") }

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	err := play(t.Context(), Options{Out: shut{}, Exit: true, Target: "ssh"}, hooks{dir: dir})
	if err == nil || !strings.Contains(err.Error(), "tell what happens: the pipe is closed") {
		t.Errorf("error %v", err)
	}
	empty(t, dir)
}

// While the demo stays up, what it prints is enough to use its server.
func TestStaysUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, dir := &recorder{}, t.TempDir()
	ended := make(chan error, 1)
	go func() {
		ended <- play(ctx, Options{Out: r, Target: "ssh", Color: true, Listen: "0.0.0.0:0"}, hooks{dir: dir, made: r.see, rotations: 2})
	}()
	for !strings.Contains(r.text(), "--profile keyturn-demo\n") {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, r.text())
		case <-time.After(10 * time.Millisecond):
		}
	}
	client, secret := fromExports(t, r.text())
	list, err := client.ListSecrets(ctx, &kms.ListSecretsRequest{})
	if err != nil || list.TotalCount != 3 {
		t.Errorf("list %v, %v; want three secrets", list, err)
	}
	if _, err := client.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: accountSecret, VersionStage: kms.StagePrevious}); err != nil {
		t.Error(err)
	}
	text := r.text()
	if i := slices.IndexFunc(r.secrets(), func(s string) bool { return s != secret && strings.Contains(text, s) }); i >= 0 {
		t.Errorf("the output holds secret value %d", i)
	}
	if n := strings.Count(text, "\n"); n > 100 {
		t.Errorf("%d lines", n)
	}
	cancel()
	if err := <-ended; err != nil || !strings.HasSuffix(r.text(), "Stopped; nothing is left behind.\n") {
		t.Errorf("error %v after\n%s", err, r.text())
	}
	empty(t, dir)
}

// fromExports makes a client of the printed lines, as a shell and the CLI would.
func fromExports(t *testing.T, text string) (*kms.Client, string) {
	t.Helper()
	env := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^  export KEYTURN_(\w+)=(\S+)$`).FindAllStringSubmatch(text, -1) {
		env[m[1]] = m[2]
	}
	pem, err := os.ReadFile(env["CA_FILE"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := kms.NewClient(kms.Config{
		Endpoint: env["ENDPOINT"], HTTPClient: &http.Client{Transport: transport, Timeout: 10 * time.Second},
		Credentials: sign.Credentials{
			AccessKeyID:     env["ACCESS_KEY_ID"],
			AccessKeySecret: sensitive.New(env["ACCESS_KEY_SECRET"]),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return client, env["ACCESS_KEY_SECRET"]
}

// An interruption at any moment leaves no process and no directory. The test is not parallel to
// others, because it must know all that is made in the directory for temporary files: PostgreSQL
// makes its own there when this is root.
func TestInterrupted(t *testing.T) {
	for target, moments := range map[string][]string{
		"postgres": {"0ms", "30ms", "200ms", "500ms", "1.1", "2.6", "3.6"}, "openssh": {"30ms", "200ms", "2.3"}, "ssh": {"2.3", "2.5"},
	} {
		for _, at := range moments {
			after, err := time.ParseDuration(at)
			t.Run(target+" at "+at, func(t *testing.T) {
				dir := t.TempDir()
				works(t, "let PostgreSQL's account in", os.Chmod(filepath.Dir(dir), 0o755))
				t.Setenv("TMPDIR", dir)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				h := hooks{rotations: 2, reached: func(step string) {
					if step == at {
						cancel()
					}
				}}
				if err == nil {
					defer time.AfterFunc(after, cancel).Stop()
				}
				r := &recorder{}
				err := play(ctx, Options{Out: r, Target: target, Pace: 5 * time.Millisecond}, h)
				if errors.Is(err, sandbox.ErrNoPostgres) || errors.Is(err, sandbox.ErrNoOpenSSH) {
					t.Skipf("skipped: %v", err)
				}
				if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "interrupted at step ") {
					t.Errorf("error %v; want that it was interrupted", err)
				}
				if strings.Contains(r.text(), "FAILED") {
					t.Errorf("the output blames a step:\n%s", r.text())
				}
				empty(t, dir)
				noProcess(t, dir)
			})
		}
	}
}

// noProcess fails the test when a process has dir in its command line. Children of a killed initdb
// may take a moment.
func noProcess(t *testing.T, dir string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return
	}
	var found []string
	for range 100 {
		found = nil
		files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
		for _, file := range files {
			line, err := os.ReadFile(file)
			if err == nil && bytes.Contains(line, []byte(dir)) {
				found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
			}
		}
		if len(found) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("still running: %q", found)
}

// A consumer counts what happened to it, also when that was bad.
func TestConsumerCounts(t *testing.T) {
	t.Parallel()
	server := keyturntest.Start(t)
	store := func(id string, stages ...string) {
		t.Helper()
		in := &kms.PutSecretValueRequest{
			SecretName:    "s",
			VersionID:     id,
			SecretData:    sensitive.New("value of " + id),
			VersionStages: stages,
		}
		if _, err := server.Client.PutSecretValue(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	_, err := server.Client.CreateSecret(
		t.Context(),
		&kms.CreateSecretRequest{SecretName: "s", VersionID: "v1", SecretData: sensitive.New("value of v1")},
	)
	works(t, "create", err)
	store("v2", pendingLabel)

	live := "v1"
	c := &consumer{secret: "s", client: server.Client, login: func(_ context.Context, v sensitive.Value) error {
		if v.Reveal() != "value of "+live {
			return ErrRejected
		}
		return nil
	}}
	check := func(what string, reads, failedReads, logins, waits, failures int) {
		t.Helper()
		if got := c.counts(); got.reads != reads || got.failedReads != failedReads || got.logins != logins ||
			len(got.waits) != waits ||
			got.failures != failures {
			t.Errorf(
				"%s: %+v; want %d reads, %d failed, %d logins, %d waits, %d failures",
				what,
				got,
				reads,
				failedReads,
				logins,
				waits,
				failures,
			)
		}
	}
	c.turn(t.Context())
	check("v1 is live", 1, 0, 1, 0, 0)
	live = "v2"
	c.turn(t.Context())
	check("v2 is live and pending", 4, 0, 2, 1, 0) // current, current again, pending
	if c.using != "v1" {
		t.Errorf("using %q: a login with a pending version counts as one with the current", c.using)
	}
	live = "v9"
	began := time.Now()
	c.turn(t.Context())
	if got := c.counts(); got.failures != 1 || got.failedReads != 0 || !errors.Is(got.trouble, ErrRejected) ||
		time.Since(began) > 2*patience {
		t.Errorf("nothing is live: %+v after %v; want one failure", got, time.Since(began))
	}
	before := c.counts().reads
	c.login = func(context.Context, sensitive.Value) error { return errors.New("nobody answers") }
	c.turn(t.Context())
	check("no answer", before+1, 0, 2, 1, 2)
	c.secret = "none"
	c.turn(t.Context())
	check("no such secret", before+2, 1, 2, 1, 2)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	c.turn(ended)
	check("interrupted", before+2, 1, 2, 1, 2)
}
