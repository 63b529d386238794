package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/support"
)

// recorder is a server that notes what reaches it.
type recorder struct{ calls []kms.Call }

func (*recorder) Endpoint() string { return "https://kms.example.test/" }

func (r *recorder) Do(_ context.Context, call kms.Call) ([]byte, error) {
	r.calls = append(r.calls, call)
	return []byte("{}"), nil
}

// doorTo is the gate of an agent whose configuration names the secret db, before a server.
func doorTo(server upstream) *Gate {
	hold := func(string, string) (release func()) { return func() {} }
	return &Gate{
		server: server,
		scope:  onlyNamed("db"),
		leases: newLeases(bareName, hold),
		log:    slog.New(slog.DiscardHandler),
	}
}

// onlyNamed is a source whose configuration names one secret.
func onlyNamed(name string) *secretSource {
	h := &secretSource{}
	h.state.Store(&backend{names: []string{name}})
	return h
}

// aRequest returns parameters with which an operation can be called; where it takes SecretName,
// that is the given one.
func aRequest(op *operation.Op, secretName string) sign.Params {
	var params sign.Params
	for _, p := range op.Params() {
		value := "1"
		switch {
		case p.Name == "SecretName":
			value = secretName
		case p.Name == "Secret":
			p.Name, value = "Secret.1.SecretName", secretName
		case !p.Required:
			continue
		case len(p.Enum) > 0:
			value = p.Enum[0]
		}
		params = append(params, sign.Param{Name: p.Name, Value: value})
	}
	return params
}

// TestDoorServesNoOtherOperation verifies for every operation of the API that a program at the
// agent's wire API reaches the server only by reads about named secrets, and by reads that name no
// resource.
func TestDoorServesNoOtherOperation(t *testing.T) {
	t.Parallel()
	aboutNothing := []string{"DescribeAccountKmsStatus", "DescribeRegions", "GetCallerIdentity", "GetRandomPassword"}
	for _, op := range protocol.Operations() {
		for secretName, named := range map[string]bool{"db": true, "other": false} {
			server := &recorder{}
			g := doorTo(server)
			params := aRequest(op, secretName)
			if op.Name == "GetSecretValue" {
				// The current version would come from memory.
				params = append(params, sign.Param{Name: "VersionId", Value: "v1"})
			}
			_, err := g.Call(t.Context(), op, protocol.Request{Params: params})
			aboutSecrets := op.Name == "WatchSecrets" || !op.Mutates && op.Resource == "secret/${SecretName}"
			passes := named && aboutSecrets || slices.Contains(aboutNothing, op.Name)
			want := fault.Denied
			switch {
			case passes:
				want = fault.OK
			case op.Mutates:
				want = fault.Unsupported
			}
			if got := fault.KindOf(err); got != want || passes != (len(server.calls) == 1) {
				t.Errorf("%s with %v: %v, and %d calls reach the server", op.Name, params, err, len(server.calls))
			}
			if want == fault.Denied && !strings.Contains(fmt.Sprint(err), "any_secret") {
				t.Errorf("%s: %v does not name the setting", op.Name, err)
			}
		}
	}
}

// TestDoorPassesParametersOn verifies that what reaches the server is each parameter that the
// operation declares, in the form in which it was checked, and neither what the operation does not
// have nor what belongs to a signature.
func TestDoorPassesParametersOn(t *testing.T) {
	t.Parallel()
	server := &recorder{}
	g := doorTo(server)
	_, err := g.Call(t.Context(), protocol.Named("WatchSecrets"), protocol.Request{Params: sign.Params{
		{Name: "Action", Value: "WatchSecrets"},
		{Name: "Signature", Value: "s"},
		{Name: "AccessKeyId", Value: "k"},
		{Name: "Unknown", Value: "u"},
		{Name: "Consumer", Value: "victim"},
		{Name: "Leaving", Value: "FALSE"},
		{Name: "WaitSeconds", Value: "7"},
		{Name: "Secret.9.SecretName", Value: "db"},
		{Name: "Secret.9.VersionId", Value: "v1"},
		{Name: "Secret.9.Unknown", Value: "u"},
	}})
	if err != nil || len(server.calls) != 1 {
		t.Fatalf("%v, %d calls", err, len(server.calls))
	}
	got := map[string]string{}
	for _, p := range server.calls[0].Params {
		if p.Value != "" {
			got[p.Name] = p.Value
		}
	}
	want := map[string]string{"WaitSeconds": "7", "Secret.1.SecretName": "db", "Secret.1.VersionId": "v1"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the server gets %v, want %v", got, want)
	}
}

// TestWireIsNoWayToOtherReads verifies that a program at the wire API of an agent cannot use the
// rights of the agent's access key for anything but the secrets that the configuration names: it
// cannot list secrets, rotations or users, and learns nothing of another secret by its tags, by a
// simulation or by waiting for a change of it.
func TestWireIsNoWayToOtherReads(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.put(t, "other", "v1", "other-marker")
	tag := &kms.TagResourceRequest{SecretName: "other", Tags: []kms.Tag{{TagKey: "team", TagValue: "tag-marker"}}}
	if _, err := s.server.Client.TagResource(t.Context(), tag); err != nil {
		t.Fatal(err)
	}
	named := s.wire(t, s.run(t, s.config(t, "\nsecrets: db\nkms: {listen: \"127.0.0.1:0\"}\n")))
	all := s.wire(t, s.run(t, s.config(t, "\nkms: {listen: \"127.0.0.1:0\", any_secret: true}\n")))
	ask := func(c *kms.Client, version, action string, pairs ...string) (string, error) {
		var params sign.Params
		for i := 0; i < len(pairs); i += 2 {
			params = append(params, sign.Param{Name: pairs[i], Value: pairs[i+1]})
		}
		body, err := c.Do(t.Context(), kms.Call{Version: version, Action: action, Params: params})
		return string(body), err
	}

	for name, tt := range map[string]struct {
		version, action string
		params          []string
	}{
		"all secrets":         {kms.Version, "ListSecrets", nil},
		"all rotations":       {kms.Version, "ListRotations", nil},
		"all targets":         {kms.Version, "ListTargets", nil},
		"tags of all secrets": {kms.Version, "ListTagResources", []string{"RegionId", "local", "ResourceType", "secret"}},
		"tags of another secret": {kms.Version, "ListTagResources", []string{
			"RegionId", "local", "ResourceType", "secret", "ResourceId.1", "other",
		}},
		"tags, db among them": {kms.Version, "ListTagResources", []string{
			"RegionId", "local", "ResourceType", "secret", "SecretName", "db", "ResourceId.1", "db", "ResourceId.2", "other",
		}},
		"another secret, watched": {kms.Version, "WatchSecrets", []string{"Secret.1.SecretName", "other"}},
		"db and another, watched": {kms.Version, "WatchSecrets", []string{
			"Secret.1.SecretName", "db", "Secret.2.SecretName", "other",
		}},
		"another secret's ARN": {kms.Version, "DescribeSecret", []string{
			"SecretName", "acs:kms:local:" + s.server.AccountID + ":secret/other",
		}},
		"the audit trail": {kms.Version, "DescribeAuditTrail", nil},
		"all users":       {ram.Version, "ListUsers", nil},
		"all policies":    {ram.Version, "ListPolicies", nil},
	} {
		_, err := ask(all, tt.version, tt.action, tt.params...)
		if kms.CodeOf(err) == kms.CodeNoPermission {
			t.Errorf("%s with any_secret: %v", name, err)
		}
		body, err := ask(named, tt.version, tt.action, tt.params...)
		if err == nil || !strings.Contains(err.Error(), "any_secret") || strings.Contains(body+err.Error(), "marker") {
			t.Errorf("%s: %s, %v", name, body, err)
		}
	}
	for name, tt := range map[string]struct {
		version, action string
		params          []string
	}{
		"itself":    {kms.STSVersion, "GetCallerIdentity", nil},
		"a word":    {kms.Version, "GetRandomPassword", []string{"PasswordLength", "9"}},
		"db":        {kms.Version, "ListSecretVersionIds", []string{"SecretName", "db"}},
		"db, watch": {kms.Version, "WatchSecrets", []string{"Secret.1.SecretName", "db"}},
	} {
		if body, err := ask(named, tt.version, tt.action, tt.params...); err != nil {
			t.Errorf("%s: %s, %v", name, body, err)
		}
	}
}

// TestDoorSpeaksForNoConsumer verifies that a program at the wire API cannot say that another
// consumer has left or uses another version, whatever secrets the agent serves, while the agent
// itself says what it uses.
func TestDoorSpeaksForNoConsumer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	watch := func(c *kms.Client, version string, leaving bool) error {
		_, err := c.WatchSecrets(t.Context(), &kms.WatchSecretsRequest{
			Secrets: []kms.WatchedSecret{{SecretName: "db", VersionID: version}}, Consumer: "victim", Leaving: leaving,
		})
		return err
	}
	versionOf := func(consumer string) string {
		t.Helper()
		list, err := s.server.Client.ListSecretConsumers(t.Context(), &kms.ListSecretConsumersRequest{SecretName: "db"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list.Consumers {
			if c.Consumer == consumer {
				return c.VersionID
			}
		}
		return ""
	}
	if err := watch(s.server.Client, "v1", false); err != nil {
		t.Fatal(err)
	}
	s.put(t, "db", "v2", "marker-two")
	for _, setting := range []string{"", ", any_secret: true"} {
		r := s.run(t, s.config(t, "\nsecrets: db\ninstance: the-agent\nkms: {listen: \"127.0.0.1:0\""+setting+"}\n"))
		door := s.wire(t, r)
		var said *kms.Error
		if err := watch(door, "v2", true); !errors.As(err, &said) || said.Code != kms.CodeUnsupportedOperation {
			t.Errorf("that the victim leaves: %v", err)
		}
		if err := watch(door, "v2", false); err != nil {
			t.Errorf("that the victim uses v2: %v", err)
		}
		read := &kms.GetSecretValueRequest{SecretName: "db", VersionID: "v2", Consumer: "newcomer"}
		if _, err := door.GetSecretValue(t.Context(), read); err != nil {
			t.Error(err)
		}
		if victim, newcomer := versionOf("victim"), versionOf("newcomer"); victim != "v1" || newcomer != "" {
			t.Errorf("the server takes the victim to use %q, and a newcomer %q", victim, newcomer)
		}
		await(t, func() bool { return versionOf("the-agent") == "v2" })
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		if got := versionOf("the-agent"); got != "" {
			t.Errorf("the agent has left, and counts as a consumer of %s", got)
		}
	}
}

// TestLeases verifies that a version is held as long as any program says it uses it, that nothing
// that another program says releases it earlier, and that neither versions nor secrets are held
// without a bound.
func TestLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		holds := map[string]int{}
		l := newLeases((&callers{secretSource: onlyNamed("db")}).heldName, func(name, version string) func() {
			holds[name+" "+version]++
			return func() { holds[name+" "+version]-- }
		})
		says := func(consumer, name, version, oldest string) {
			l.note(&kms.WatchSecretsRequest{
				Consumer:    consumer,
				WaitSeconds: 25,
				Secrets:     []kms.WatchedSecret{{SecretName: name, VersionID: version, OldestVersionID: oldest}},
			})
		}
		held := func(want string) {
			t.Helper()
			synctest.Wait()
			l.mu.Lock()
			defer l.mu.Unlock()
			var got []string
			for version, n := range holds {
				if n != 0 {
					got = append(got, version)
				}
			}
			slices.Sort(got)
			if strings.Join(got, ", ") != want {
				t.Errorf("held: %v, want %s", got, want)
			}
		}
		says("a", "db", "v2", "v1")
		says("a", "acs:kms:local:1:secret/db", "v2", "") // another program by the same name
		says("", "db", "v3", "")                         // one that does not want to be known
		says("a", "db", "no name", "")
		held("db v1, db v2")
		time.Sleep(100 * time.Second)
		says("a", "db", "v2", "v1")
		time.Sleep(100 * time.Second)
		says("b", "db", "v2", "")
		held("db v1, db v2")
		time.Sleep(16 * time.Second)
		held("db v2")
		time.Sleep(100 * time.Second)
		held("")
		for i := range 2 * maxLeases {
			says("a", fmt.Sprint("acs:kms:r", i, ":1:secret/db"), fmt.Sprint("w", i), "")
			says("a", fmt.Sprint("s", i), "v1", "") // not held
		}
		l.mu.Lock()
		if len(l.held) != 1 || len(l.held["db"]) != maxLeases {
			t.Errorf("%d secrets, %d versions are held", len(l.held), len(l.held["db"]))
		}
		l.mu.Unlock()
		// A program whose version found no room is waited for all the same.
		time.Sleep(100 * time.Second)
		says("a", "db", "v1", "")
		time.Sleep(100 * time.Second)
		synctest.Wait()
		l.mu.Lock()
		if len(l.held["db"]) != maxLeases {
			t.Errorf("%d versions are held while a program uses one more", len(l.held["db"]))
		}
		l.mu.Unlock()
		l.close()
		held("")
	})
}

// TestDoorHoldsForPrograms verifies that the agent reports a version as its own while a program
// behind it still uses that version.
func TestDoorHoldsForPrograms(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.run(t, s.config(t, "\nsecrets: db\ninstance: the-agent\nkms: {listen: \"127.0.0.1:0\"}\n"))
	log := &support.Log{}
	program, err := consumer.New(t.Context(), consumer.Config{
		Client: s.wire(t, r), Secrets: []string{"db"}, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := program.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := program.Hold("db", "v1") // a connection, say
	defer release()
	s.put(t, "db", "v2", "marker-two")
	await(t, func() bool {
		list, err := s.server.Client.ListSecretConsumers(t.Context(), &kms.ListSecretConsumersRequest{SecretName: "db"})
		return err == nil && slices.ContainsFunc(list.Consumers, func(c kms.SecretConsumer) bool {
			return c.Consumer == "the-agent" && c.VersionID == "v2" && c.OldestVersionID == "v1" && c.Behind
		})
	})
	if err := program.Close(); err != nil || strings.Contains(log.String(), "leaves") {
		t.Errorf("the program ends with %v, and logs:\n%s", err, log)
	}
}

// TestCallersHoldNoMoreThanABound verifies that a program which asks for ever other names, or
// spellings of one, makes the agent hold a bounded number of them, and takes no place from what the
// configuration names.
func TestCallersHoldNoMoreThanABound(t *testing.T) {
	t.Parallel()
	server := &oneServer{}
	c, err := consumer.New(t.Context(), consumer.Config{
		Client:  server,
		Secrets: []string{"db"},
		Logger:  slog.New(slog.DiscardHandler),
		NoPush:  true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := onlyNamed("db")
	h.state.Load().consumer = c
	held := &callers{secretSource: h}
	g := &Gate{held: held, server: server, scope: h, log: slog.New(slog.DiscardHandler)}
	for i := range maxOthers + 100 {
		_, err := g.Call(t.Context(), protocol.Named("GetSecretValue"), protocol.Request{
			Params: sign.Params{{Name: "SecretName", Value: fmt.Sprint("acs:kms:r", i, ":1:secret/db")}},
		})
		if kms.CodeOf(err) != kms.CodeResourceNotFound {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if n := len(c.Status()); n > maxOthers+1 {
		t.Errorf("%d secrets are held", n)
	}
	if s, err := held.Get(t.Context(), "db"); err != nil || s.VersionID != "v1" {
		t.Errorf("the named secret: %v", err)
	}
}
