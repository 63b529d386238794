package rotation_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// door is an address that leads to a server when it is open, and ends every connection at once
// when it is not.
type door struct {
	addr string
	open atomic.Bool
}

func startDoor(t *testing.T, to string) *door {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{addr: l.Addr().String()}
	var all sync.WaitGroup
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			if !d.open.Load() {
				_ = in.Close()
				continue
			}
			all.Go(func() { pass(in, to) })
		}
	})
	return d
}

// pass joins two connections until one of them ends.
func pass(in net.Conn, to string) {
	out, err := net.Dial("tcp", to)
	if err != nil {
		_ = in.Close()
		return
	}
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		both.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // its end, of whatever kind, ends both
			_ = in.Close()
			_ = out.Close()
		})
	}
	both.Wait()
}

// TestCancel verifies that a rotation at an unreachable target can be cancelled. It ends at once
// if the candidate was never sent, and otherwise once the target has undone it. The credential in
// use stays.
func TestCancel(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	far := startDoor(t, d.Addr())
	s := start(t, server.Change(func(c *server.Config) {
		c.Rotator.At = func(_, point string) {
			if point == "after storing "+string(rotation.Sending) {
				far.open.Store(false) // the target was asked what the account is, and is away when the candidate is sent
			}
		}
	}))
	must(t, second(s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "pg-admin",
		VersionID:  "v1",
		SecretData: sensitive.New(d.admin.json()),
	})))
	must(t, second(s.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName:      "pg-main",
		Kind:            "postgresql",
		AdminSecretName: "pg-admin",
		Config:          fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, far.addr),
	})))
	for _, subType := range []string{"SingleUser", "DoubleUsers"} {
		name, l := "db-"+subType, login{"u" + subType, "first-password-of-u"}
		d.run(t, fmt.Sprintf(`CREATE ROLE "%s" LOGIN PASSWORD '%s'`, l.AccountName, l.AccountPassword))
		list := []login{l}
		if subType == "DoubleUsers" {
			d.run(t, fmt.Sprintf(`CREATE ROLE "%s_clone" LOGIN`, l.AccountName))
			list = append(list, login{l.AccountName + "_clone", "none"})
		}
		far.open.Store(true)
		create(t, s, name, subType, list...)
		rotate(t, s, name, "v2")
		support.Until(t, "an attempt", func() bool { return until(t, s, name, "prepared").Attempt > 0 })
		cancel := func() (out *kms.DescribeRotationResponse) {
			t.Helper()
			support.Retry(t, func() (err error) { // while the candidate is being sent, this is refused
				out, err = s.Client.CancelRotation(t.Context(), &kms.SecretNameRequest{SecretName: name})
				if err != nil && kms.CodeOf(err) != kms.CodeResourceInUse {
					t.Fatal(err)
				}
				return err
			})
			return out
		}
		if out := cancel(); out.State != "prepared" && out.State != "reverting" || out.Reason != "Cancelled by an operator." {
			t.Errorf("%s: cancelled after an attempt, with the target away: %s, %s", subType, out.State, out.Reason)
		}
		far.open.Store(true)
		out := until(t, s, name, "abandoned")
		if out.Reason != "Cancelled by an operator." || out.CredentialState == "dead" {
			t.Errorf("%s ended with %q, credential %s", subType, out.Reason, out.CredentialState)
		}
		far.open.Store(false)
		if version, l := current(t, s, name); version != "v1" || d.login(t.Context(), l) != nil {
			t.Errorf("%s: after the end version %s is current, and logging in gives %v", subType, version,
				d.login(t.Context(), l))
		}
		if _, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{
			SecretName:   name,
			VersionStage: "ACSPending",
		}); kms.CodeOf(err) != kms.CodeResourceNotFound {
			t.Errorf("%s: the candidate still has its label: %v", subType, err)
		}
	}
}
