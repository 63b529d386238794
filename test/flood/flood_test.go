package flood

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

const (
	victimAddress = "127.0.0.2"
	readEvery     = 5 * time.Millisecond
	freshEvery    = 20  // reads; then one over a new connection
	mostRatio     = 3.0 // of the victim's median latency to that of quiet
	mostMemory    = 450 // MiB of the server
	mostTrail     = 200 << 10
)

// TestFlood runs each attack for a while, and verifies that another client is served meanwhile.
func TestFlood(t *testing.T) {
	p := start(t)
	admin := p.client(t, "127.0.0.3", p.admin)
	if _, err := admin.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "victim/a",
		VersionID:  "v1",
		SecretData: sensitive.New("value"),
	}); err != nil {
		t.Fatal(err)
	}
	good, powerless := p.user(t, admin, "good"), p.user(t, admin, "powerless")
	if _, err := ram.New(admin).AttachPolicyToUser(t.Context(), &ram.UserPolicyRequest{
		UserName: "good", PolicyName: "AliyunKMSSecretUserAccess", PolicyType: ram.TypeSystem,
	}); err != nil {
		t.Fatal(err)
	}
	for i, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			a.from = fmt.Sprintf("127.0.1.%d", i+1)
			a.key = powerless
			p.withstands(t, a, good)
		})
	}
	p.consumersAreNoted(t, admin, good)
}

// user makes a user without any policy, and returns an access key of it.
func (p *process) user(t *testing.T, admin *kms.Client, name string) sign.Credentials {
	t.Helper()
	users := ram.New(admin)
	_, err := users.CreateUser(t.Context(), &ram.CreateUserRequest{UserName: name})
	if err != nil {
		t.Fatal(err)
	}
	out, err := users.CreateAccessKey(t.Context(), &ram.CreateAccessKeyRequest{UserName: name})
	if err != nil {
		t.Fatal(err)
	}
	return sign.Credentials{AccessKeyID: out.AccessKey.AccessKeyID, AccessKeySecret: out.AccessKey.AccessKeySecret}
}

// withstands measures a client before and during an attack.
func (p *process) withstands(t *testing.T, a attack, good sign.Credentials) {
	begin := p.trail(t)
	quiet := p.victim(t, t.Context(), good, a.lasts()/3)
	before := p.trail(t)
	line := float64(before-begin) / float64(quiet.reads) // the record of one of the victim's reads
	ctx, stop := context.WithTimeout(t.Context(), a.lasts())
	defer stop()
	var sent atomic.Int64
	var memory float64
	var parts sync.WaitGroup
	parts.Go(func() { a.run(ctx, t, p, a, &sent) })
	parts.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			now, err := p.memory()
			if err != nil {
				t.Error(err)
				return
			}
			memory = max(memory, now)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	during := p.victim(t, ctx, good, a.lasts())
	parts.Wait()
	// The victim's own reads are recorded as ever.
	trail := (float64(p.trail(t)-before) - float64(during.reads)*line) / a.lasts().Seconds()
	ratio := float64(during.median) / float64(quiet.median)
	for name, value := range map[string]float64{
		"victim_errors": float64(len(during.errors) + len(quiet.errors)), "victim_reads": float64(during.reads),
		"latency_ratio": ratio, "rss_mb": memory,
		"sent_per_second": float64(sent.Load()) / a.lasts().Seconds(), "audit_bytes_per_second": max(0, trail),
	} {
		figures.Set("flood_"+a.name+"_"+name, value)
	}
	t.Logf("%d sent; %d reads, median %v, quiet %v, ratio %.2f; %.0f MiB; %.0f bytes of trail per second",
		sent.Load(), during.reads, during.median, quiet.median, ratio, memory, trail)
	if err := errors.Join(append(quiet.errors, during.errors...)...); err != nil {
		t.Errorf("%d of the victim's %d reads failed, for example: %.300v", len(during.errors), during.reads, err)
	}
	if *full && ratio > mostRatio {
		t.Errorf("the victim's median latency is %.1f times that of quiet: %v, %v", ratio, during.median, quiet.median)
	}
	if *full && memory > mostMemory || memory > 3*mostMemory { // the race detector takes memory too
		t.Errorf("the server took %.0f MiB, want at most %d", memory, mostMemory)
	}
	if *full && trail > mostTrail {
		t.Errorf("the trail grew by %.0f bytes per second, want at most %d", trail, mostTrail)
	}
	if sent.Load() == 0 {
		t.Error("nothing was sent")
	}
	if !p.Running() {
		t.Fatal("the server has ended")
	}
}

// measured is what a victim has noticed.
type measured struct {
	reads  int
	median time.Duration
	errors []error
}

// victim reads for a while: over a connection that stays, now and then over a new one of the same
// address, and in between over one from an address without known clients.
func (p *process) victim(t *testing.T, ctx context.Context, as sign.Credentials, d time.Duration) (m measured) {
	t.Helper()
	steady := p.client(t, victimAddress, as)
	read := func(c *kms.Client) time.Duration {
		begun := time.Now()
		m.reads++
		if _, err := c.GetSecretValue(context.WithoutCancel(ctx), &kms.GetSecretValueRequest{
			SecretName: "victim/a",
		}); err != nil {
			m.errors = append(m.errors, err)
		}
		return time.Since(begun)
	}
	read(steady) // connects
	var took []time.Duration
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	end := time.Now().Add(d)
	for i := 1; time.Now().Before(end) || len(took) < 50; i++ {
		<-tick.C
		if i%freshEvery != 0 {
			took = append(took, read(steady))
			continue
		}
		from := victimAddress
		if i%(2*freshEvery) == 0 {
			from = fmt.Sprintf("127.0.%d.%d", 100+i/2500%100, 1+i%250)
		}
		transport := p.transport(from)
		read(p.over(t, transport, as))
		transport.CloseIdleConnections()
	}
	slices.Sort(took)
	m.median = took[len(took)/2]
	return m
}

// consumersAreNoted verifies that after all attacks a consumer's word and another's read are known.
func (p *process) consumersAreNoted(t *testing.T, admin *kms.Client, good sign.Credentials) {
	t.Helper()
	c := p.client(t, victimAddress, good)
	if _, err := c.WatchSecrets(t.Context(), &kms.WatchSecretsRequest{
		Consumer: "app-1", Secrets: []kms.WatchedSecret{{SecretName: "victim/a", VersionID: "v1"}},
	}); err != nil {
		t.Fatal(err)
	}
	out, err := admin.ListSecretConsumers(t.Context(), &kms.ListSecretConsumersRequest{
		SecretName: "victim/a",
		MaxResults: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	said, read := false, false
	for _, u := range out.Consumers {
		said = said || u.Consumer == "app-1"
		read = read || u.Consumer == "" && u.Source == victimAddress
	}
	if !said || !read {
		t.Errorf("after the attacks the consumer's word is known: %v, the reader: %v", said, read)
	}
}

// page is a request without a signature.
const page = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

var errStatus = errors.New("unexpected status")

// drain reads an answer to its end.
func drain(r *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode >= http.StatusInternalServerError {
		return errStatus
	}
	return nil
}
