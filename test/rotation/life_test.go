package rotation_test

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

// system is a target with an account app that has a secret, and the means to inspect it without
// the engine.
type system struct {
	strategy string
	register func(t *testing.T, s *keyturntest.Server)
	// create makes a secret, with an account of that name.
	create func(t *testing.T, s *keyturntest.Server, name string)
	login  func(ctx context.Context, l login) error
	// stored is what the target has of the account of a secret.
	stored func(t *testing.T, name string) string
	// set gives an account another password by hand.
	set func(t *testing.T, name, password string)
}

// each runs a test against a target with two accounts and one with two passwords.
func each(t *testing.T, run func(t *testing.T, x system)) {
	t.Run("double", func(t *testing.T) { t.Parallel(); run(t, startDatabase(t).system("double")) })
	t.Run("overlap", func(t *testing.T) { t.Parallel(); run(t, overlapping(t)) })
}

// system is the database with secrets of one strategy.
func (d *database) system(strategy string) system {
	accounts := func(t *testing.T, name string) (list []login) {
		for _, account := range []string{name, name + "_clone"} {
			l := login{account, "first-password-of-" + account}
			if name != "app" { // which is there already
				d.run(t, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", l.AccountName, l.AccountPassword))
			} else if account != name {
				l = d.clone
			}
			list = append(list, l)
		}
		return list
	}
	return system{
		strategy: strategy,
		register: func(t *testing.T, s *keyturntest.Server) { register(t, s, d) },
		create: func(t *testing.T, s *keyturntest.Server, name string) {
			t.Helper()
			if list := accounts(t, name); strategy == "double" {
				create(t, s, name, "DoubleUsers", list...)
			} else {
				create(t, s, name, "SingleUser", list[0])
			}
		},
		login: d.login,
		set: func(t *testing.T, name, password string) {
			d.run(t, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", name, password))
		},
		stored: func(t *testing.T, name string) (all string) {
			t.Helper()
			conn, err := pgx.Connect(t.Context(),
				fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", d.admin.AccountName, d.admin.AccountPassword, d.Addr()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(t.Context())
			err = conn.QueryRow(t.Context(), "SELECT string_agg(rolpassword, ' ' ORDER BY rolname) FROM pg_authid WHERE "+
				"rolname IN ($1, $2)", name, name+"_clone").Scan(&all)
			if err != nil {
				t.Fatal(err)
			}
			return all
		},
	}
}

func (d *database) run(t *testing.T, statement string) {
	t.Helper()
	if err := d.Exec(t.Context(), "postgres", statement); err != nil {
		t.Fatal(err)
	}
}

// overlapping is a Redis server.
func overlapping(t *testing.T) system {
	t.Helper()
	r := servers.StartRedis(t, servers.WithACLFile)
	set := func(t *testing.T, name, password string) {
		t.Helper()
		r.Do(t, "ACL", "SETUSER", name, "on", "resetpass", ">"+password, "~*", "+get")
	}
	return system{
		strategy: "overlap", set: set,
		register: func(t *testing.T, s *keyturntest.Server) {
			t.Helper()
			admin := login{"default", r.Password}
			must(t, second(s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
				SecretName: "admin",
				VersionID:  "v1",
				SecretData: sensitive.New(admin.json()),
			})))
			must(t, second(s.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
				TargetName:      "cache",
				Kind:            "redis",
				AdminSecretName: "admin",
				Config:          fmt.Sprintf(`{"address":%q,"tls":{"off":true}}`, r.Addr),
			})))
		},
		create: func(t *testing.T, s *keyturntest.Server, name string) {
			t.Helper()
			l := login{name, "first-password-of-" + name}
			set(t, name, l.AccountPassword)
			must(t, second(s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
				SecretName: name,
				VersionID:  "v1",
				SecretData: sensitive.New(l.json()),
			})))
			must(t, second(s.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
				SecretName: name,
				TargetName: "cache",
			})))
		},
		login: func(ctx context.Context, l login) error {
			c := r.Client(l.AccountName, l.AccountPassword)
			defer c.Close()
			err := c.Get(ctx, "nothing").Err()
			if err != nil && strings.HasPrefix(err.Error(), "WRONGPASS") {
				return err
			}
			return nil
		},
		stored: func(t *testing.T, name string) string { return fmt.Sprint(r.Do(t, "ACL", "GETUSER", name)) },
	}
}

func second[T any](_ T, err error) error { return err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused expects an error whose text says something.
func refused(t *testing.T, err error, words string) {
	t.Helper()
	var said *kms.Error
	if !errors.As(err, &said) || !strings.Contains(said.Message, words) {
		t.Errorf("got %v, want a refusal that says %q", err, words)
	}
}

// run starts a server with both kinds, and a secret named app.
func (x system) run(t *testing.T, options ...keyturntest.Option) *keyturntest.Server {
	t.Helper()
	s := start(t, append([]keyturntest.Option{bothKinds}, options...)...)
	x.register(t, s)
	x.create(t, s, "app")
	return s
}

var bothKinds = server.Change(func(c *server.Config) { c.Kinds = []target.Kind{postgresql.Kind(), redis.Kind()} })

// read is the credential of a version, by its label or its name.
func read(t *testing.T, s *keyturntest.Server, name, stage, version string) (l login) {
	t.Helper()
	out, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{
		SecretName:   name,
		VersionStage: stage,
		VersionID:    version,
	})
	must(t, err)
	must(t, json.Unmarshal([]byte(out.SecretData.Reveal()), &l))
	return l
}

func (x system) works(t *testing.T, what string, l login, want bool) {
	t.Helper()
	if err := x.login(t.Context(), l); (err == nil) != want {
		t.Errorf("%s, account %s: logs in: %v, want %v", what, l.AccountName, err == nil, want)
	}
}

func name(n string) *kms.SecretNameRequest { return &kms.SecretNameRequest{SecretName: n} }

func TestUndo(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		s := x.run(t)
		first := read(t, s, "app", "", "")
		refused(t, second(s.Client.UndoRotation(t.Context(), name("app"))), "grace period")
		rotate(t, s, "app", "v2")
		until(t, s, "app", "grace")
		next := read(t, s, "app", "", "")
		must(t, second(s.Client.UndoRotation(t.Context(), name("app"))))
		untilVersion(t, s, "app", "v1")
		until(t, s, "app", "grace")
		if got := read(t, s, "app", kms.StagePrevious, ""); got != next {
			t.Error("ACSPrevious is not the version that was undone")
		}
		x.works(t, "after the undo, the previous credential", first, true)
		x.works(t, "after the undo, the one undone", next, true)
		must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
		until(t, s, "app", "done")
		x.works(t, "in the end, the previous credential", first, true)
		x.works(t, "in the end, the one undone", next, false)
	})
}

// untilVersion waits until a version is current.
func untilVersion(t *testing.T, s *keyturntest.Server, name, want string) {
	t.Helper()
	support.Until(t, "version "+want+" to be current", func() bool {
		got, _ := current(t, s, name)
		return got == want
	})
}

func TestEmergency(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		s := x.run(t)
		leaked := []login{read(t, s, "app", "", "")}
		rotate(t, s, "app", "v2")
		until(t, s, "app", "grace")
		leaked = append(leaked, read(t, s, "app", "", ""))
		refused(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{
			SecretName: "app",
			VersionID:  "v3",
		})), "rotation emergency app")
		must(t, second(s.Client.PauseRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "app"})))
		must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
			SecretName: "app",
			VersionID:  "v3",
		})))
		if r := untilRotation(t, s, "app", "v3", "done"); r.Trigger != "emergency" {
			t.Errorf("the trigger is %s", r.Trigger)
		}
		for i, l := range leaked {
			x.works(t, fmt.Sprintf("leaked credential %d", i+1), l, false)
		}
		x.works(t, "the current credential", read(t, s, "app", "", ""), true)
	})
}

// TestEmergencyAfterACancelledRetirement verifies that the credential of a retirement that was
// cancelled counts as useless when the emergency after it has given its account another one, and
// not before.
func TestEmergencyAfterACancelledRetirement(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	x := d.system("double")
	s := x.run(t)
	first := read(t, s, "app", "", "")
	rotate(t, s, "app", "v2")
	until(t, s, "app", "grace")
	lock, err := pgx.Connect(t.Context(), fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable",
		d.admin.AccountName, d.admin.AccountPassword, d.Addr()))
	must(t, err)
	defer lock.Close(context.WithoutCancel(t.Context()))
	must(t, second(lock.Exec(t.Context(), "BEGIN; ALTER ROLE app CONNECTION LIMIT 50")))
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName: "app",
		VersionID:  "v3",
	})))
	support.Retry(t, func() error { // the retirement waits for the lock
		if r := until(t, s, "app", "retiring"); r.Reason == "" {
			return errors.New("the retirement has not failed yet")
		}
		return nil
	})
	must(t, second(s.Client.CancelRotation(t.Context(), name("app"))))
	r := untilRotation(t, s, "app", "v3", "scheduled", "prepared", "applying", "unknown")
	if r.EarlierVersionID != "v1" || r.EarlierRetired {
		t.Errorf("before the emergency has changed anything: version %q, useless: %t", r.EarlierVersionID, r.EarlierRetired)
	}
	x.works(t, "the credential of the cancelled retirement", first, true)
	must(t, second(lock.Exec(t.Context(), "ROLLBACK")))
	if r = untilRotation(t, s, "app", "v3", "done"); r.EarlierVersionID != "v1" || !r.EarlierRetired {
		t.Errorf("after the emergency: version %q, useless: %t", r.EarlierVersionID, r.EarlierRetired)
	}
	x.works(t, "the credential of the cancelled retirement", first, false)
}

// TestEmergencyWithoutItsCheck drops what check_sql reads, as the holder of the leaked credential
// may. A planned rotation is not made current then, and an emergency is.
func TestEmergencyWithoutItsCheck(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	d.run(t, "CREATE SCHEMA app AUTHORIZATION app; CREATE TABLE app.beat (); ALTER TABLE app.beat OWNER TO app; "+
		"GRANT USAGE ON SCHEMA app TO app_clone; GRANT SELECT ON app.beat TO app_clone")
	x := d.system("double")
	s := x.run(t)
	must(t, second(s.Client.UpdateTarget(t.Context(), &kms.UpdateTargetRequest{
		TargetName: "pg-main",
		Config:     fmt.Sprintf(`{"address":%q,"tls":{"off":true},"check_sql":"SELECT FROM app.beat"}`, d.Addr()),
	})))
	leaked := read(t, s, "app", "", "")
	d.run(t, "DROP TABLE app.beat")
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName:      "app",
		VersionID:       "v2",
		AgreeToFindings: true,
	})))
	if r := untilRotation(t, s, "app", "v2", "done"); !strings.Contains(r.Reason, "check_sql") {
		t.Errorf("the reason does not quote what failed: %q", r.Reason)
	}
	x.works(t, "the leaked credential", leaked, false)
	x.works(t, "the current credential", read(t, s, "app", "", ""), true)
}

// TestEmergencyEvicts changes the password of the account with the leaked credential, as its holder
// may. An emergency removes that password, too; another rotation leaves it, and says so.
func TestEmergencyEvicts(t *testing.T) {
	t.Parallel()
	x := startDatabase(t).system("double")
	s := x.run(t, server.Change(func(c *server.Config) { c.Rotation.ProbeEvery = time.Hour })) // no probe finds it before
	leaked := read(t, s, "app", "", "")
	leaked.AccountPassword = "set-by-the-holder"
	x.set(t, leaked.AccountName, leaked.AccountPassword)
	rotate(t, s, "app", "v2")
	until(t, s, "app", "grace")
	must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
	r := until(t, s, "app", "done")
	if !strings.Contains(r.Reason, "has a password other than") ||
		!strings.Contains(r.Reason, `ALTER ROLE "app" PASSWORD NULL`) {
		t.Errorf("a password that was left: %q", r.Reason)
	}
	x.works(t, "the password that a rotation leaves", leaked, true)

	leaked = read(t, s, "app", "", "")
	leaked.AccountPassword = "set-by-the-holder"
	x.set(t, leaked.AccountName, leaked.AccountPassword)
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName: "app",
		VersionID:  "v3",
	})))
	r = untilRotation(t, s, "app", "v3", "done")
	if !strings.Contains(r.Reason, "which was removed") {
		t.Errorf("a password that was removed: %q", r.Reason)
	}
	x.works(t, "the password of the holder of the leaked credential", leaked, false)
	x.works(t, "the current credential", read(t, s, "app", "", ""), true)
}

// TestEmergencyOfAForm gives the account of the leaked credential a password in a form that the
// target does not allow, as its holder may; with two logins, the leaked one is closed, too. An
// emergency begins once the form is agreed to, and the new credential has the form that is allowed.
func TestEmergencyOfAForm(t *testing.T) {
	t.Parallel()
	for _, strategy := range []string{"double", "single"} {
		t.Run(strategy, func(t *testing.T) {
			t.Parallel()
			d := startDatabase(t)
			x := d.system(strategy)
			s := x.run(t, briefly)
			leaked := read(t, s, "app", "", "")
			if strategy == "double" { // as an operator does who closes the leaked login first
				d.run(t, "ALTER ROLE "+leaked.AccountName+" NOLOGIN")
			}
			sum := md5.Sum([]byte("set-by-the-holder" + leaked.AccountName))
			x.set(t, leaked.AccountName, "md5"+hex.EncodeToString(sum[:]))
			request := kms.EmergencyRotationRequest{SecretName: "app", VersionID: "v2"}
			refused(t, second(s.Client.EmergencyRotation(t.Context(), &request)), "form-changes")
			request.AgreeToFindings = true
			must(t, second(s.Client.EmergencyRotation(t.Context(), &request)))
			untilRotation(t, s, "app", "v2", "done")
			x.works(t, "the new credential", read(t, s, "app", "", ""), true)
			x.works(t, "the leaked credential", leaked, false)
			if got := x.stored(t, "app"); strings.Contains(got, "md5") {
				t.Errorf("stored: %.80s", got)
			}
		})
	}
}

func TestRehearse(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		s := x.run(t)
		before, first := x.stored(t, "app"), read(t, s, "app", "", "")
		must(t, second(s.Client.RehearseRotation(t.Context(), &kms.VersionedRequest{SecretName: "app", VersionID: "try"})))
		r := untilRotation(t, s, "app", "try", "done", "abandoned")
		if r.State != "done" || r.Mode != "rehearse" {
			t.Errorf("a rehearsal ended as %s (%s)", r.State, r.Reason)
		}
		loggedIn := false
		for _, step := range r.Steps {
			loggedIn = loggedIn || step.Event == "logged-in"
		}
		if !loggedIn {
			t.Errorf("the candidate has not logged in: %+v", r.Steps)
		}
		if version, l := current(t, s, "app"); version != "v1" || l != first {
			t.Errorf("after a rehearsal version %s is current", version)
		}
		x.works(t, "the credential in use", first, true)
		_, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{
			SecretName:   "app",
			VersionStage: "ACSPending",
		})
		refused(t, err, "has no label")
		if x.strategy == "overlap" { // of a secret with two accounts no version can be read that has no label
			x.works(t, "the candidate", read(t, s, "app", "", "try"), false)
			if x.stored(t, "app") != before {
				t.Error("the rehearsal has left something at the target")
			}
		}
		rotate(t, s, "app", "v2")
		until(t, s, "app", "grace")
		x.works(t, "a rotation after the rehearsal", read(t, s, "app", "", ""), true)
	})
}

func TestPause(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		var ahead atomic.Int64
		clock := keyturntest.WithTime(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
		s := x.run(t, clock)
		x.create(t, s, "other")
		targetName := until(t, s, "app", "idle").TargetName
		for _, scope := range []kms.PauseRotationRequest{{SecretName: "app"}, {TargetName: targetName}, {}} {
			must(t, second(s.Client.PauseRotation(t.Context(), &scope)))
			refused(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{
				SecretName: "app",
				VersionID:  "v2",
			})), "paused")
			must(t, second(s.Client.ResumeRotation(t.Context(), &scope)))
		}
		must(t, second(s.Client.PauseRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "app"})))
		for _, n := range []string{"app", "other"} {
			must(t, second(s.Client.UpdateSecretRotationPolicy(t.Context(), &kms.UpdateSecretRotationPolicyRequest{
				SecretName:              n,
				EnableAutomaticRotation: true,
				RotationInterval:        "6h",
			})))
		}
		ahead.Store(int64(7 * time.Hour))
		if r := until(t, s, "other", "grace", "done"); r.Trigger != "automatic" {
			t.Errorf("the trigger is %s", r.Trigger)
		}
		if version, _ := current(t, s, "app"); version != "v1" {
			t.Errorf("a paused secret has been rotated to %s", version)
		}
		must(t, second(s.Client.ResumeRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "app"})))
		if r, err := s.Client.DescribeRotation(t.Context(), name("app")); err != nil ||
			r.Paused ||
			r.NextRotationDate.Before(time.Now()) && r.NextRotationDate.IsZero() {
			t.Errorf("after the pause: %+v, %v", r, err)
		}
		until(t, s, "app", "grace", "done")
		x.works(t, "after the pause", read(t, s, "app", "", ""), true)
	})
}

func TestGroupSpacing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		s := x.run(t)
		x.create(t, s, "other")
		const gap = 3 * time.Second
		for _, n := range []string{"app", "other"} {
			r, err := s.Client.DescribeRotation(t.Context(), name(n))
			must(t, err)
			in := &kms.ConfigureRotationRequest{SecretName: n, Group: "payments", GroupGap: "3s"}
			if x.strategy == "overlap" {
				in.TargetName = r.TargetName
			}
			must(t, second(s.Client.ConfigureRotation(t.Context(), in)))
			rotate(t, s, n, "v2")
		}
		var times []time.Time
		for _, n := range []string{"app", "other"} {
			for _, step := range until(t, s, n, "grace").Steps {
				if step.Event == "candidate-stored" {
					times = append(times, step.Time)
				}
			}
		}
		// Times cross the wire in whole seconds.
		if len(times) != 2 || times[0].Sub(times[1]).Abs() < gap-time.Second {
			t.Errorf("two of a group began at %v, want %v between them", times, gap)
		}
	})
}

// TestImportChangesNothing compares what the target has stored: creating, configuring and
// restarting do not touch it.
func TestImportChangesNothing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		dir := keyturntest.WithDataDir(t.TempDir())
		s := x.run(t, dir)
		before := x.stored(t, "app")
		r := until(t, s, "app", "idle")
		in := &kms.ConfigureRotationRequest{SecretName: "app", RotationInterval: "7d"}
		if x.strategy == "overlap" {
			in.TargetName = r.TargetName
		}
		must(t, second(s.Client.ConfigureRotation(t.Context(), in)))
		untilLive(t, s, "app")
		due := until(t, s, "app", "idle").NextRotationDate
		must(t, s.Stop())
		s = start(t, bothKinds, dir)
		x.create(t, s, "other") // whose rotation shows that the engine is at work again
		rotate(t, s, "other", "v2")
		until(t, s, "other", "grace")
		r, err := s.Client.DescribeRotation(t.Context(), name("app"))
		must(t, err)
		if r.State != "idle" || !r.NextRotationDate.Equal(due) {
			t.Errorf("after a restart the rotation is %s and due %v, want idle and %v", r.State, r.NextRotationDate, due)
		}
		if x.stored(t, "app") != before {
			t.Error("what the target has stored has changed")
		}
		x.works(t, "after a restart", read(t, s, "app", "", ""), true)
	})
}

func untilLive(t *testing.T, s *keyturntest.Server, secret string) {
	t.Helper()
	support.Until(t, "the target to accept the credential of "+secret, func() bool {
		r, err := s.Client.DescribeRotation(t.Context(), name(secret))
		must(t, err)
		return r.CredentialState == "live"
	})
}

func TestRepair(t *testing.T) {
	t.Parallel()
	each(t, testRepair)
	t.Run("single", func(t *testing.T) { t.Parallel(); testRepair(t, startDatabase(t).system("single")) })
}

func testRepair(t *testing.T, x system) {
	s := x.run(t, server.Change(func(c *server.Config) { c.Rotation.ProbeEvery = 500 * time.Millisecond }))
	untilLive(t, s, "app")
	first := read(t, s, "app", "", "")
	repair := func(in kms.RepairRotationRequest) error {
		in.SecretName = "app"
		return second(s.Client.RepairRotation(t.Context(), &in))
	}
	refused(t, repair(kms.RepairRotationRequest{RepairAction: "probe"}), "nothing is quarantined")
	byHand := func(password string) {
		t.Helper()
		x.set(t, "app", password)
		r := until(t, s, "app", "quarantined")
		if !strings.Contains(r.Reason, "It was changed outside of Keyturn") || r.Advice == "" {
			t.Errorf("reason %q, advice %q", r.Reason, r.Advice)
		}
		refused(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{
			SecretName: "app",
			VersionID:  "v9",
		})), "rotation repair app")
	}
	byHand("changed-by-hand-1")
	if got := read(t, s, "app", "", ""); got != first {
		t.Error("drift has changed what is read")
	}
	must(t, repair(kms.RepairRotationRequest{RepairAction: "probe"}))
	until(t, s, "app", "quarantined")
	x.works(t, "what was set by hand, after a probe", login{"app", "changed-by-hand-1"}, true)
	x.set(t, "app", first.AccountPassword)
	must(t, repair(kms.RepairRotationRequest{RepairAction: "probe"}))
	until(t, s, "app", "done")
	byHand("changed-by-hand-2")
	must(t, repair(kms.RepairRotationRequest{RepairAction: "apply"}))
	until(t, s, "app", "done")
	x.works(t, "the stored credential, after apply", first, true)
	byHand("changed-by-hand-3")
	adopted := login{"app", "changed-by-hand-3"}
	data := func(l login) sensitive.Value {
		if x.strategy == "overlap" {
			return sensitive.New(l.json())
		}
		return sensitive.New(fmt.Sprintf(`{"Accounts":[%s]}`, l.json()))
	}
	must(t, repair(kms.RepairRotationRequest{RepairAction: "adopt", VersionID: "mine", SecretData: data(adopted)}))
	if version, l := current(t, s, "app"); version != "mine" || l != adopted {
		t.Errorf("after adopt version %s is current", version)
	}
	rotate(t, s, "app", "v2")
	untilRotation(t, s, "app", "v2", "grace", "done")
	x.works(t, "a rotation after all that", read(t, s, "app", "", ""), true)
}

// TestNothingUnprovenIsPromoted has a second address where applications log in, which does not
// get the new password: a replica that is cut off. What applications read stays what works at
// both.
func TestNothingUnprovenIsPromoted(t *testing.T) {
	t.Parallel()
	r, replica := servers.StartRedis(t, servers.WithACLFile), servers.StartRedis(t)
	s := start(t, bothKinds)
	l := login{"app", "first-password-of-app"}
	for _, at := range []*servers.Redis{r, replica} {
		at.Do(t, "ACL", "SETUSER", l.AccountName, "on", ">"+l.AccountPassword, "~*", "+get")
	}
	admin := login{"default", r.Password}
	must(t, second(s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "admin",
		VersionID:  "v1",
		SecretData: sensitive.New(admin.json()),
	})))
	must(t, second(s.Client.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName:      "cache",
		Kind:            "redis",
		AdminSecretName: "admin",
		Config:          fmt.Sprintf(`{"address":%q,"verify":[%q],"tls":{"off":true}}`, r.Addr, replica.Addr),
	})))
	must(t, second(s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "app",
		VersionID:  "v1",
		SecretData: sensitive.New(l.json()),
	})))
	must(t, second(s.Client.ConfigureRotation(t.Context(), &kms.ConfigureRotationRequest{
		SecretName: "app",
		TargetName: "cache",
	})))
	rotate(t, s, "app", "v2")
	support.Retry(t, func() error {
		out, err := s.Client.DescribeRotation(t.Context(), name("app"))
		must(t, err)
		if version, got := current(t, s, "app"); version != "v1" || got != l {
			t.Fatalf("version %s was promoted, which the replica does not accept", version)
		}
		if len(out.Steps) == 0 || out.Steps[len(out.Steps)-1].Event != "login-rejected" {
			return fmt.Errorf("the candidate was not rejected: %+v", out.Steps)
		}
		if out.State != "applied" || out.Reason == "" {
			t.Errorf("after a rejected login: %s (%s)", out.State, out.Reason)
		}
		return nil
	})
}

// TestOnlyTheOldIsRetired has an administrator of the target give the account that is out of use
// a password of their own during the grace.
func TestOnlyTheOldIsRetired(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	x := d.system("double")
	s := x.run(t)
	old := read(t, s, "app", "", "")
	rotate(t, s, "app", "v2")
	until(t, s, "app", "grace")
	x.set(t, "app", "a-password-by-hand")
	must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
	until(t, s, "app", "done")
	x.works(t, "the retired credential", old, false)
	x.works(t, "the password that a person has set", login{"app", "a-password-by-hand"}, true)
	x.works(t, "the current credential", read(t, s, "app", "", ""), true)
}

// TestProbeNow changes passwords by hand at a target that would be asked in an hour: asked for,
// the probe finds both, and changes nothing.
func TestProbeNow(t *testing.T) {
	t.Parallel()
	d := startDatabase(t)
	s := start(t)
	register(t, s, d)
	create(t, s, "db", "SingleUser", d.app)
	create(t, s, "other", "SingleUser", d.clone)
	untilLive(t, s, "db")
	untilLive(t, s, "other")
	d.run(t, "ALTER ROLE app PASSWORD 'by hand'; ALTER ROLE app_clone PASSWORD 'by hand too'")
	refused(t, second(s.Client.ProbeRotation(t.Context(), &kms.PauseRotationRequest{TargetName: "none"})), "no target")
	must(t, second(s.Client.ProbeRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "db"})))
	until(t, s, "db", "quarantined")
	must(t, second(s.Client.ProbeRotation(t.Context(), &kms.PauseRotationRequest{})))
	until(t, s, "other", "quarantined")
	for _, l := range []login{{"app", "by hand"}, {"app_clone", "by hand too"}} {
		if err := d.login(t.Context(), l); err != nil {
			t.Errorf("after the probe: %v", err)
		}
	}
}

// TestProbeInGrace changes the password of the account in use by hand in a grace period. It is
// found, and a repair or an undo gives applications a credential that works, in the same grace
// period.
func TestProbeInGrace(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, x system) {
		s := x.run(t)
		first := read(t, s, "app", "", "")
		rotate(t, s, "app", "v2")
		grace := until(t, s, "app", "grace")
		next := read(t, s, "app", "", "")
		byHand := func(password string) {
			t.Helper()
			if x.strategy == "overlap" {
				x.set(t, next.AccountName, first.AccountPassword)
			} else {
				x.set(t, next.AccountName, password)
			}
			out, err := s.Client.ProbeRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "app"})
			must(t, err)
			if out.Asked != 1 && !strings.Contains(out.Reason, "is quarantined") { // the engine may have asked already
				t.Errorf("the target is asked about %d credentials, not about %d: %s", out.Asked, out.NotAsked, out.Reason)
			}
			r := until(t, s, "app", "quarantined")
			if r.RotationID != "v2" || !strings.Contains(r.Reason, "It was changed outside of Keyturn") ||
				!strings.Contains(r.Advice, "keyturn rotation undo") {
				t.Errorf("rotation %q: %s; advice %s", r.RotationID, r.Reason, r.Advice)
			}
			out, err = s.Client.ProbeRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "app"})
			must(t, err)
			if out.Asked != 0 || out.NotAsked != 1 || !strings.Contains(out.Reason, "keyturn rotation repair app --probe") {
				t.Errorf("a quarantined credential: %+v", out)
			}
		}
		sameGrace := func(what string) {
			t.Helper()
			after := until(t, s, "app", "grace")
			if !after.GraceUntil.Equal(grace.GraceUntil) ||
				after.BaseVersionID != grace.BaseVersionID ||
				after.RotationID != "v2" {
				t.Errorf("after %s: rotation %q until %s with base %s, want %q, %s, %s", what, after.RotationID,
					after.GraceUntil, after.BaseVersionID, "v2", grace.GraceUntil, grace.BaseVersionID)
			}
		}
		byHand("a-password-by-hand")
		must(t, second(s.Client.RepairRotation(t.Context(), &kms.RepairRotationRequest{
			SecretName:   "app",
			RepairAction: "apply",
		})))
		sameGrace("the repair")
		x.works(t, "the current credential after the repair", next, true)
		if x.strategy == "double" {
			x.works(t, "the previous credential after the repair", first, true)
		}
		if x.strategy == "overlap" { // the repair has left one credential
			must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
			until(t, s, "app", "done")
			return
		}
		byHand("another-by-hand")
		must(t, second(s.Client.RepairRotation(t.Context(), &kms.RepairRotationRequest{
			SecretName:   "app",
			RepairAction: "adopt",
			VersionID:    "mine",
			SecretData:   sensitive.New(`{"Accounts":[` + login{next.AccountName, "another-by-hand"}.json() + `]}`),
		})))
		sameGrace("adopt")
		x.works(t, "the previous credential after adopt", read(t, s, "app", "", kms.StagePrevious), true)
		byHand("a-third-by-hand")
		must(t, second(s.Client.UndoRotation(t.Context(), name("app"))))
		untilVersion(t, s, "app", "v1")
		x.works(t, "the credential after the undo", read(t, s, "app", "", ""), true)
		must(t, second(s.Client.EndRotationGrace(t.Context(), name("app"))))
		until(t, s, "app", "done")
	})
}

// TestEmergencyProvesTheNewCredentialLast verifies that an emergency does not end while a session
// of the leaked login, which acts as the other one, has replaced the new credential.
func TestEmergencyProvesTheNewCredentialLast(t *testing.T) {
	t.Parallel()
	var x system
	var taken login
	x = startDatabase(t).system("double")
	s := x.run(t, briefly, server.Change(func(c *server.Config) {
		c.Rotator.At = func(_, point string) {
			if point == "before storing "+string(rotation.Evicting) {
				x.set(t, taken.AccountName, taken.AccountPassword)
			}
		}
	}))
	leaked := read(t, s, "app", "", "")
	taken = login{map[bool]string{true: "app_clone", false: "app"}[leaked.AccountName == "app"], "set-by-a-session"}
	x.set(t, leaked.AccountName, "set-by-the-holder")
	must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
		SecretName: "app",
		VersionID:  "v2",
	})))
	r := untilRotation(t, s, "app", "v2", "retiring", "done", "quarantined")
	support.Retry(t, func() (err error) {
		r, err = s.Client.DescribeRotation(t.Context(), name("app"))
		isEvicting := func(s kms.RotationStep) bool { return s.Event == string(rotation.Evicting) }
		i := slices.IndexFunc(r.Steps, isEvicting)
		if err == nil && r.State == "retiring" && (i < 0 || i == len(r.Steps)-1) {
			err = errors.New("it is being retired")
		}
		return err
	})
	if r.State == "done" {
		t.Errorf("the emergency has ended, and the new credential does not log in: %+v", r)
	}
	x.works(t, "what the session has set", taken, true)
}

// TestEmergencyOfDrift verifies that an emergency begins although the holder of the leaked
// credential has replaced it at the target: before a check has noticed, and out of the quarantine
// afterwards.
func TestEmergencyOfDrift(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, x system) {
		s := x.run(t, briefly)
		emergency := func(version string) *kms.DescribeRotationResponse {
			t.Helper()
			must(t, second(s.Client.EmergencyRotation(t.Context(), &kms.EmergencyRotationRequest{
				SecretName: "app",
				VersionID:  version,
			})))
			return untilRotation(t, s, "app", version, "done")
		}
		leaked := read(t, s, "app", "", "")
		taken := login{leaked.AccountName, "set-by-the-holder"}
		x.set(t, taken.AccountName, taken.AccountPassword)
		emergency("v2")
		x.works(t, "the leaked credential", leaked, false)
		x.works(t, "the new credential", read(t, s, "app", "", ""), true)

		leaked = read(t, s, "app", "", "")
		taken.AccountName = leaked.AccountName
		x.set(t, taken.AccountName, taken.AccountPassword)
		must(t, second(s.Client.ProbeRotation(t.Context(), &kms.PauseRotationRequest{SecretName: "app"})))
		until(t, s, "app", "quarantined")
		refused(t, second(s.Client.RotateSecret(t.Context(), &kms.RotateSecretRequest{
			SecretName: "app",
			VersionID:  "v3",
		})), "quarantined")
		r := emergency("v4")
		x.works(t, "out of the quarantine, the leaked credential", leaked, false)
		x.works(t, "out of the quarantine, the new credential", read(t, s, "app", "", ""), true)
		if x.strategy != "overlap" { // there, what was set by hand stays beside the others
			x.works(t, "out of the quarantine, what its holder has set", taken, false)
		}
		if r.CandidateVersionID != "v4" {
			t.Errorf("version %s is current", r.CandidateVersionID)
		}
	}
	each(t, run)
	t.Run("single", func(t *testing.T) { t.Parallel(); run(t, startDatabase(t).system("single")) })
}
