package rotation_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/support"
)

// briefly makes the minimum of a grace short, and its limit long.
var briefly = server.Change(func(c *server.Config) {
	c.Rotation.Grace = rotation.Grace{Min: time.Second, Max: time.Hour}
})

// says reports for a consumer which version it uses, and which is the oldest that it holds.
func says(t *testing.T, s *keyturntest.Server, instance, version, oldest string) {
	t.Helper()
	must(t, second(s.Client.WatchSecrets(t.Context(), &kms.WatchSecretsRequest{
		Secrets: []kms.WatchedSecret{{SecretName: "app", VersionID: version, OldestVersionID: oldest}}, Consumer: instance,
	})))
}

// waits blocks until the grace period waits for n consumers.
func waits(t *testing.T, s *keyturntest.Server, n int) (r *kms.DescribeRotationResponse) {
	t.Helper()
	support.Retry(t, func() error {
		r = until(t, s, "app", "grace")
		if r.WaitingForCount != n || !strings.HasPrefix(r.Reason, fmt.Sprintf("Waits for %d ", n)) {
			return fmt.Errorf("it waits for %d (%s), want %d", r.WaitingForCount, r.Reason, n)
		}
		return nil
	})
	return r
}

// TestGraceWaits verifies that the previous credential works until the last consumer has moved,
// and is retired at once then: long before the limit, and before any consumer counts as lost.
func TestGraceWaits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		s := x.run(t, briefly)
		old := read(t, s, "app", "", "") // an inferred one, which reads again below
		says(t, s, "app-1", "v1", "")
		says(t, s, "app-2", "v1", "")
		rotate(t, s, "app", "v2")
		r := waits(t, s, 3)
		if r.Advice == "" || !r.GraceLimitTime.After(r.GraceUntil.Add(50*time.Minute)) {
			t.Errorf("while it waits: advice %q, until %s, limit %s", r.Advice, r.GraceUntil, r.GraceLimitTime)
		}
		var who []string
		for _, c := range r.WaitingFor {
			who = append(who, c.Consumer+" "+c.VersionID+" "+c.Evidence)
		}
		slices.Sort(who)
		if want := []string{" v1 inferred", "app-1 v1 acknowledged", "app-2 v1 acknowledged"}; !slices.Equal(who, want) {
			t.Errorf("it waits for %q, want %q", who, want)
		}
		refused(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{
			SecretName: "app",
			VersionID:  "v3",
		})), "until 3 of its consumers have moved, or until")
		read(t, s, "app", "", "")
		says(t, s, "app-1", "v2", "v1") // what is open holds the former
		says(t, s, "app-2", "v2", "v2")
		waits(t, s, 1)
		x.works(t, "while a consumer holds it, the previous credential", old, true)
		says(t, s, "app-1", "v2", "")
		began := time.Now()
		out := until(t, s, "app", "done")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("after the last one has moved it took %s", took)
		}
		x.works(t, "when all have moved, the previous credential", old, false)
		if overran(out) {
			t.Errorf("consumers were left behind: %+v", out.Steps)
		}
	})
}

// TestGraceEndsWhenTheLastMovesMeanwhile verifies that a consumer that moves on while the engine
// stores that it waits for it does not delay the retirement.
func TestGraceEndsWhenTheLastMovesMeanwhile(t *testing.T) {
	t.Parallel()
	asked, moved := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(moved) })
	defer goOn()
	var once sync.Once
	s := startDatabase(t).system("double").run(t, briefly, server.Change(func(c *server.Config) {
		c.Rotator.At = func(_, point string) {
			if point == "before storing "+string(rotation.Awaiting) {
				once.Do(func() {
					close(asked)
					<-moved
				})
			}
		}
	}))
	says(t, s, "app-1", "v1", "")
	rotate(t, s, "app", "v2")
	select {
	case <-asked:
	case <-time.After(support.Patience):
		t.Error("the engine never waits for the consumer")
	}
	says(t, s, "app-1", "v2", "")
	must(t, second(s.Client.ListSecretConsumers(t.Context(), &kms.ListSecretConsumersRequest{SecretName: "app"})))
	goOn()
	until(t, s, "app", "done")
}

// TestGraceEndsEarly verifies that an undo, an operator, and the last consumer that leaves each
// end a grace period that waits.
func TestGraceEndsEarly(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		s := x.run(t, briefly)
		first := read(t, s, "app", "", "")
		says(t, s, "app-1", "v1", "")
		rotate(t, s, "app", "v2")
		waits(t, s, 2)
		must(t, second(s.Client.UndoRotation(t.Context(), name("app"))))
		untilVersion(t, s, "app", "v1")
		until(t, s, "app", "done") // all of them have what is current again
		x.works(t, "after the undo, the previous credential", first, true)
		rotate(t, s, "app", "v3")
		waits(t, s, 2)
		read(t, s, "app", "", "")
		must(t, second(s.Client.WatchSecrets(t.Context(), &kms.WatchSecretsRequest{
			Secrets:  []kms.WatchedSecret{{SecretName: "app"}},
			Consumer: "app-1",
			Leaving:  true,
		})))
		until(t, s, "app", "done")
		x.works(t, "after the last one has left, the previous credential", first, false)
		says(t, s, "app-1", "v3", "")
		rotate(t, s, "app", "v4")
		waits(t, s, 2)
		must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
		if out := until(t, s, "app", "done"); overran(out) {
			t.Errorf("an operator has ended it, and the steps say %+v", out.Steps)
		}
	})
}

// TestGraceLimit verifies that the previous credential is retired at the limit whatever consumers
// hold, and that operators are notified.
func TestGraceLimit(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	x := d.system("double")
	events := newReceiver(t, 0)
	s := x.run(t, receivers(events), server.Change(func(c *server.Config) { c.Rotation.Grace.Min = time.Second }))
	old := read(t, s, "app", "", "")
	must(t, second(s.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName:  "app",
		GracePeriod: "0s",
	})))
	rotate(t, s, "app", "v2")
	until(t, s, "app", "done") // at once, though a consumer holds v1
	x.works(t, "without a grace, the previous credential", old, false)
	held := read(t, s, "app", "", "")
	out, err := s.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName:  "app",
		GracePeriod: "0s",
		GraceLimit:  "3s",
	})
	must(t, err)
	if out.GraceLimit != "3s" || out.GracePeriod != "0s" {
		t.Errorf("configured: grace %s, limit %s", out.GracePeriod, out.GraceLimit)
	}
	rotate(t, s, "app", "v3")
	waits(t, s, 1)
	x.works(t, "before the limit, the previous credential", held, true)
	out = until(t, s, "app", "done")
	x.works(t, "after the limit, the previous credential", held, false)
	if !overran(out) {
		t.Errorf("the story does not say that consumers were left behind: %+v", out.Steps)
	}
	if got := events.types("app", 5); !slices.Contains(got, "rotation.grace-limit") {
		t.Errorf("events %v", got)
	}
}

// overran says whether the story of a rotation has consumers that were left behind.
func overran(r *kms.DescribeRotationResponse) bool {
	return slices.ContainsFunc(r.Steps, func(s kms.RotationStep) bool {
		return s.Event == "grace-limit-reached" && strings.Contains(s.Text, "another version")
	})
}
