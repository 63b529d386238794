package prove

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

const (
	// probe is the interval between probes of a credential in use, in milliseconds.
	probe = 2000
	// probeSlack is what a busy machine may take beside.
	probeSlack = 4000
)

// found waits until drift is found that is there since a time, and holds it against the time that
// it may take.
func (c *process) found(t *testing.T, secret string, since time.Time) {
	t.Helper()
	figures.Count("drift_runs", 1)
	r := c.until(t, secret, "quarantined")
	at := since
	for _, s := range r.Steps {
		if s.Event == "drift-found" {
			at = s.Time
		}
	}
	took := int(at.Sub(since).Milliseconds())
	figures.Most("drift_found_ms_max", took)
	if took > probe+probeSlack {
		figures.Count("drift_missed", 1)
		t.Errorf("drift of %s was found after %d ms, want at most %d", secret, took, probe+probeSlack)
	}
	if !strings.Contains(r.Reason, "It was changed outside of Keyturn") || r.CredentialState != "dead" || r.Advice == "" {
		figures.Count("drift_missed", 1)
		t.Errorf("%s: reason %q, credential %s, advice %q", secret, r.Reason, r.CredentialState, r.Advice)
	}
}

func driftFigures() {
	for _, name := range []string{"drift_runs", "drift_missed", "drift_found_ms_max", "drift_wrong_ends"} {
		figures.Count(name, 0)
	}
}

// repair repairs a quarantined rotation, and verifies that the credential in use works afterwards.
func (f fixture) repair(t *testing.T, c *process, in kms.RepairRotationRequest, want string) {
	t.Helper()
	good(t, second(c.RepairRotation(t.Context(), &in)))
	if f.refusal != "" {
		f.refused(t, c, in.SecretName)
	}
	r := c.until(t, in.SecretName, "done", "abandoned", "quarantined")
	value := c.value(t, in.SecretName, kms.StageCurrent)
	if r.State != "done" || want != "" && value != want {
		figures.Count("drift_wrong_ends", 1)
		t.Errorf("%s after %s: %s (%s), the value is the one wanted: %v", in.SecretName, in.RepairAction,
			r.State, r.Reason, value == want)
	}
	if !f.mustLogin(t, c, in.SecretName+" after "+in.RepairAction, value, true) {
		figures.Count("drift_wrong_ends", 1)
	}
}

// refused waits until the reason of a rotation names what must be changed at the target, and
// changes it.
func (f fixture) refused(t *testing.T, c *process, secret string) {
	t.Helper()
	support.Retry(t, func() error {
		r, err := c.DescribeRotation(t.Context(), &kms.SecretNameRequest{SecretName: secret})
		if err == nil && !strings.Contains(r.Reason, f.refusal) {
			err = fmt.Errorf("the reason of %s does not name %s: %s", secret, f.refusal, r.Reason)
		}
		return err
	})
	f.change(t, c)
}

// rotated makes one rotation that must succeed.
func (f fixture) rotated(t *testing.T, c *process, secret string, n int) {
	t.Helper()
	c.rotate(t, secret, version(n))
	f.whole(t, c, "drift", secret, n, c.until(t, secret))
}

// driftByHand changes a password behind Keyturn's back.
func (f fixture) driftByHand(t *testing.T) {
	driftFigures()
	c, secret := f.begin(t, newPlace(t), order{Probe: probe}, f.addr, "0s")
	f.rotated(t, c, secret, 2)
	c.untilProbed(t, secret)
	before := c.value(t, secret, kms.StageCurrent)
	var a account
	good(t, json.Unmarshal([]byte(before), &a))
	const byHand = "the-password-that-a-person-has-set"
	since := time.Now()
	f.byHand(t, a.AccountName, byHand)
	c.found(t, secret, since)
	if c.value(t, secret, kms.StageCurrent) != before {
		t.Error("a quarantine has changed the current value")
	}
	f.repair(t, c, kms.RepairRotationRequest{SecretName: secret, RepairAction: "apply"}, before)
	f.rotated(t, c, secret, 3)
	good(t, json.Unmarshal([]byte(c.value(t, secret, kms.StageCurrent)), &a))
	c.untilProbed(t, secret)
	since = time.Now()
	f.byHand(t, a.AccountName, byHand)
	c.found(t, secret, since)
	a.AccountPassword = byHand
	f.repair(t, c, kms.RepairRotationRequest{
		SecretName: secret, RepairAction: "adopt", VersionID: version(4), SecretData: sensitive.New(f.stored(a)),
	}, compact(a))
	f.rotated(t, c, secret, 5)
}

// driftByRestore brings back a store from before two rotations.
func (f fixture) driftByRestore(t *testing.T) {
	driftFigures()
	p := newPlace(t)
	c, secret := f.begin(t, p, order{Probe: probe}, f.addr, "0s")
	f.rotated(t, c, secret, 2)
	c.Stop(t)
	copied := p.dir + "-of-last-week"
	copyTree(t, p.dir, copied)
	c = p.start(t, f.order(order{Probe: probe}))
	f.rotated(t, c, secret, 3)
	f.rotated(t, c, secret, 4)
	last := c.value(t, secret, kms.StageCurrent)
	c.Stop(t)
	restored := func() *process {
		good(t, os.RemoveAll(p.dir))
		copyTree(t, copied, p.dir)
		c := p.start(t, f.order(order{Probe: probe}))
		c.found(t, secret, time.Now())
		return c
	}
	c = restored()
	f.repair(t, c, kms.RepairRotationRequest{
		SecretName:   secret,
		RepairAction: "apply",
	}, c.value(t, secret, kms.StageCurrent))
	f.rotated(t, c, secret, 3)
	c.Stop(t)
	var a account
	good(t, json.Unmarshal([]byte(last), &a))
	if f.byHand == nil || a.AccountName == "" {
		return // there is no way to bring the last password back for another restore
	}
	f.byHand(t, a.AccountName, a.AccountPassword)
	c = restored()
	f.repair(t, c, kms.RepairRotationRequest{
		SecretName: secret, RepairAction: "adopt", VersionID: version(4), SecretData: sensitive.New(f.stored(a)),
	}, last)
}

// copyTree copies a directory with its modes.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy the store: %v: %s", err, out)
	}
}
