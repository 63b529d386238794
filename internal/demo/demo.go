package demo

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/internal/target/ssh"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	loopback    = "127.0.0.1:0"
	callTimeout = 10 * time.Second
	// A trail is checked again after a short while when its last line may just be being written.
	trailChecks = 5
	trailPause  = 100 * time.Millisecond
)

// Options say how the demo runs. Only Out is required.
type Options struct {
	// Out gets the narration.
	Out io.Writer
	// Exit ends the demo when all is shown; otherwise its server stays up until the context ends.
	Exit bool
	// Target is "postgres", "openssh" or "ssh", a host in this process. Empty means PostgreSQL when
	// the machine has it, and otherwise the host in this process.
	Target string
	// Color marks the narration with escape sequences.
	Color bool
	// Listen and ListenHTTP are the addresses of the server; empty means a free port of loopback.
	Listen, ListenHTTP string
	// Pace is a pause after each step, for people to read along.
	Pace time.Duration
}

// hooks are for tests. Each may be left out.
type hooks struct {
	dir     string                // where directories are made; empty means that for temporary files
	wrap    func(Target) Target   // changes the target
	made    func(sensitive.Value) // sees each password, app secret and access key secret
	reached func(step string)     // sees each step as it begins
	// rotations are those of the engine; 0 means as many as the demo has.
	rotations int
}

// Run plays the demo. Every step is checked; the first that does not hold is the error. All that
// was made is removed when Run returns, also after an error and when ctx ends.
func Run(ctx context.Context, o Options) error { return play(ctx, o, hooks{}) }

func play(ctx context.Context, o Options, h hooks) (err error) {
	p := &player{
		narrator: narrator{
			out:     o.Out,
			color:   o.Color,
			step:    "0, start",
			reached: h.reached,
		},
		options:   o,
		hooks:     h,
		stored:    map[string]map[string]sensitive.Value{},
		rotations: cmp.Or(h.rotations, rotations),
	}
	defer func() {
		if err = errors.Join(err, p.cleanUp()); err == nil {
			p.printf("\n  Stopped; nothing is left behind.\n")
			err = p.err
		}
	}()
	if err = p.perform(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("the demo was interrupted at step %s: %w", p.step, ctx.Err())
		}
		return fmt.Errorf("the demo does not hold: %w", err)
	}
	if o.Exit {
		return nil
	}
	p.tryNext()
	select {
	case <-ctx.Done():
		return nil
	case <-p.serverEnded:
		return errors.New("the server stopped by itself")
	}
}

// player is one run of the demo.
type player struct {
	narrator
	options Options
	hooks   hooks

	dir         string
	node        *server.Server
	serverEnded chan struct{}
	stopServer  func() error
	producer    *kms.Client
	account     Target
	provider    *oauthProvider

	// The consumers are of the OAuth 2.0 app, of the account that the engine rotates, and of the
	// one that a producer rotates.
	app, managed, login *consumer
	consumers           sync.WaitGroup
	consumersEnd        chan struct{}
	began               time.Time // when the first consumers did

	stored map[string]map[string]sensitive.Value // what each version of each secret must hold
	live   version                               // what the account's target accepts
	labels labels                                // where those of the account's secret must stand
	window time.Duration                         // from the registration to the move of ACSCurrent

	engines   Managed // the account that the engine rotates
	current   version // of its secret
	rotations int
	told      int // steps of its rotation that were told
	// engineSteps are those of the scenario of the engine.
	engineSteps int

	undo []func() error // in the order in which things were made
}

// perform makes everything, plays the scenarios and tells what happened.
func (p *player) perform(ctx context.Context) error {
	for _, part := range []func(context.Context) error{
		p.start, p.firstVersion, p.singleCall, p.byItself, p.byProducer, p.results,
	} {
		if err := part(ctx); err != nil {
			return err
		}
		if p.err != nil {
			return fmt.Errorf("tell what happens: %w", p.err)
		}
	}
	return ctx.Err()
}

func (p *player) later(undo func() error) { p.undo = append(p.undo, undo) }

// cleanUp undoes everything, the latest first.
func (p *player) cleanUp() error {
	var errs []error
	for i := len(p.undo) - 1; i >= 0; i-- {
		errs = append(errs, p.undo[i]())
	}
	return errors.Join(errs...)
}

func (p *player) made(v sensitive.Value) {
	if p.hooks.made != nil {
		p.hooks.made(v)
	}
}

// start makes the server and the live systems.
func (p *player) start(ctx context.Context) error {
	p.printf(
		"%s\n\n",
		p.paint(bold, "Keyturn demo: live credentials are rotated while a consumer keeps logging in with them."),
	)
	dir, err := os.MkdirTemp(p.hooks.dir, "keyturn-demo-")
	if err != nil {
		return err
	}
	p.later(func() error { return os.RemoveAll(dir) })
	if p.dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	began := time.Now()
	if err := p.startServer(ctx); err != nil {
		return err
	}
	p.printf("  server    %s, its store in this process; up in %s\n", dialable(p.node.Endpoint()), seconds(began))
	began = time.Now()
	if err := p.startTarget(ctx); err != nil {
		return err
	}
	if p.engines, err = p.account.Managed(ctx); err != nil {
		return err
	}
	p.managed.secret = p.engines.Secret
	p.made(p.engines.Admin)
	p.made(p.engines.Data)
	took := seconds(began)
	if p.provider, err = startOAuth(ctx); err != nil {
		return err
	}
	p.later(p.provider.Close)
	p.printf("  part 1    %s\n", p.provider.Name())
	p.printf("  part 2    %s; up in %s\n", p.engines.Name, took)
	p.printf("  part 3    %s\n", p.account.Name())
	p.printf(
		"  consumer  reads each secret every %d ms and logs in with what it got, from its creation to the end\n",
		readEvery.Milliseconds(),
	)
	return nil
}

func seconds(began time.Time) string { return fmt.Sprintf("%.2f s", time.Since(began).Seconds()) }

func (p *player) serverConfig() server.Config {
	return server.Config{
		DataDir:    filepath.Join(p.dir, "server"),
		NoSync:     true,
		Listen:     cmp.Or(p.options.Listen, loopback),
		ListenHTTP: cmp.Or(p.options.ListenHTTP, loopback),
		Kinds:      []target.Kind{postgresql.Kind(), ssh.Kind()},
		Rotation:   api.RotationConfig{RequestEvery: time.Millisecond}, // it shows many rotations of one secret
	}
}

// startServer starts a throw-away server and a client of its administrator.
func (p *player) startServer(ctx context.Context) (err error) {
	p.node, err = server.New(ctx, p.serverConfig())
	if err != nil {
		return fmt.Errorf("start a server: %w", err)
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx)) // the consumers end before it does
	var runErr error
	p.serverEnded = make(chan struct{})
	go func() {
		defer close(p.serverEnded)
		runErr = p.node.Run(runCtx)
	}()
	transport := &http.Transport{}
	p.stopServer = sync.OnceValue(func() error {
		transport.CloseIdleConnections() // or the server waits for them
		stop()
		<-p.serverEnded
		return runErr
	})
	p.later(p.stopServer)
	select {
	case <-p.node.Ready():
	case <-p.serverEnded:
		return errors.New("start a server: it ended at once")
	}
	pem, err := os.ReadFile(p.node.CAFile())
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	transport.ForceAttemptHTTP2 = true
	admin, _ := p.node.Admin()
	p.made(admin.AccessKeySecret)
	return p.connect(&http.Client{Transport: transport, Timeout: callTimeout}, admin)
}

// connect makes the clients. That of the consumers sends each call once, so that no failed read is
// smoothed over.
func (p *player) connect(h *http.Client, admin server.Admin) (err error) {
	config := kms.Config{
		Endpoint:    dialable(p.node.Endpoint()),
		HTTPClient:  h,
		UserAgent:   "keyturn-demo-producer",
		Credentials: sign.Credentials{AccessKeyID: admin.AccessKeyID, AccessKeySecret: admin.AccessKeySecret},
	}
	if p.producer, err = kms.NewClient(config); err != nil {
		return err
	}
	config.UserAgent, config.MaxAttempts = "keyturn-demo-consumer", 1
	reader, err := kms.NewClient(config)
	p.app, p.login = &consumer{secret: appSecret, client: reader}, &consumer{secret: accountSecret, client: reader}
	p.managed = &consumer{client: reader} // its secret is named by the target
	return err
}

// dialable is how this machine reaches a listener on every address.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

// startTarget starts the live system that has the account.
func (p *player) startTarget(ctx context.Context) (err error) {
	dir := filepath.Join(p.dir, "target")
	switch p.options.Target {
	case "postgres":
		p.account, err = StartPostgres(ctx, dir)
	case "openssh":
		p.account, err = StartOpenSSH(ctx, dir)
	case "ssh":
		p.account, err = StartSSHHost(ctx, dir)
	case "":
		if p.account, err = StartPostgres(ctx, dir); err != nil && ctx.Err() == nil {
			reason, _, _ := strings.Cut(err.Error(), "\n") // the log of a server may follow
			p.printf("  note      %s; an SSH host takes its place\n", reason)
			p.account, err = StartSSHHost(ctx, dir)
		}
	default:
		err = fmt.Errorf("unknown target %q: use postgres, openssh or ssh", p.options.Target)
	}
	if err != nil {
		return err
	}
	p.later(p.account.Close)
	if p.hooks.wrap != nil {
		p.account = p.hooks.wrap(p.account)
	}
	return nil
}

// startConsumer lets a consumer run until stopConsumers.
func (p *player) startConsumer(ctx context.Context, c *consumer) {
	if p.consumersEnd == nil {
		p.consumersEnd = make(chan struct{})
		p.later(func() error { p.stopConsumers(); return nil })
	}
	stop := p.consumersEnd
	p.consumers.Go(func() { c.run(ctx, stop) })
}

func (p *player) stopConsumers() {
	if p.consumersEnd != nil {
		close(p.consumersEnd)
		p.consumersEnd = nil
	}
	p.consumers.Wait()
}

// verifyTrail checks the chain of the audit trail, and that it holds at least so many records.
func (p *player) verifyTrail(ctx context.Context, atLeast int) error {
	p.step = "audit trail"
	checks := trailChecks
	if p.options.Exit { // all is written when the server has stopped
		checks = 1
		if err := p.stopServer(); err != nil {
			return err
		}
	}
	var report audit.Report
	var err error
	for i := range checks {
		if i > 0 {
			pause(ctx, trailPause)
		}
		if report, err = audit.Verify(filepath.Join(p.dir, "server", "audit")); err == nil {
			break
		}
	}
	if err := p.succeeded(ctx, "the chain", err); err != nil {
		return err
	}
	if report.Records < uint64(atLeast) {
		return p.failed(
			"records", fmt.Sprintf("at least the %d reads of the consumer", atLeast), fmt.Sprint(report.Records),
		)
	}
	p.printf("  audit trail: %d records, chain verified\n", report.Records)
	return nil
}

// tryNext tells how to go on by hand. The access key is that of a server that is gone with the
// demo.
func (p *player) tryNext() {
	admin, _ := p.node.Admin()
	endpoint, program := dialable(p.node.Endpoint()), fault.ShellWord(programName())
	p.section("TRY NEXT", "the server stays up until Ctrl-C, and then all of it is removed")
	p.printf("\n  endpoint  %s (TLS), http://%s (plain)\n\n", endpoint, dialable(p.node.HTTPEndpoint()))
	for _, v := range [][2]string{
		{"ENDPOINT", endpoint}, {"ACCESS_KEY_ID", admin.AccessKeyID},
		{"ACCESS_KEY_SECRET", admin.AccessKeySecret.Reveal()}, {"CA_FILE", p.node.CAFile()},
	} {
		p.printf("  export KEYTURN_%s=%s\n", v[0], fault.ShellWord(v[1]))
	}
	p.printf("\n  %s secret list\n", program)
	p.printf("  %s kms GetSecretValue --SecretName %s --VersionStage %s\n", program, accountSecret, kms.StagePrevious)
	p.printf("  %s kms RotateSecret --SecretName %s --VersionId by-hand\n", program, p.engines.Secret)
	p.printf("  %s kms DescribeRotation --SecretName %s\n\n", program, p.engines.Secret)
	p.printf(
		"  aliyun configure set --profile keyturn-demo --mode AK --region %s --endpoint %s \\\n", admin.Region,
		endpoint,
	)
	p.printf("      --access-key-id \"$KEYTURN_ACCESS_KEY_ID\" --access-key-secret \"$KEYTURN_ACCESS_KEY_SECRET\"\n")
	p.printf("  SSL_CERT_FILE=\"$KEYTURN_CA_FILE\" aliyun kms ListSecretVersionIds --SecretName %s \\\n", accountSecret)
	p.printf("      --profile keyturn-demo\n")
}
