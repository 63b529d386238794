package target_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// TestEndpointForms verifies that verify takes addresses and objects, that what it takes is
// written back unchanged, and that every mistake is named.
func TestEndpointForms(t *testing.T) {
	t.Parallel()
	for form, want := range map[string]target.Endpoint{
		`"db:5432"`:                              {Address: "db:5432", Role: target.Writer},
		`{"address":"db:5432","role":"replica"}`: {Address: "db:5432", Role: target.Replica, Lag: target.DefaultLag},
		`{"address":"db:5432","role":"replica","lag":"500ms"}`: {
			Address: "db:5432", Role: target.Replica, Lag: 500 * time.Millisecond,
		},
		`{"address":"db:5432","role":"pooler"}`: {Address: "db:5432", Role: target.Pooler},
	} {
		var got, again target.Endpoint
		if err := json.Unmarshal([]byte(form), &got); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", form, got, err, want)
		}
		written, err := json.Marshal(got)
		if err == nil {
			err = json.Unmarshal(written, &again)
		}
		if err != nil || again != want {
			t.Errorf("%s was written as %s, which is %+v, %v", form, written, again, err)
		}
	}
	for form, want := range map[string]string{
		`7`:                                "an endpoint must be an address, or an object",
		`{"address":"db","role":"leader"}`: `role "leader" must be writer, replica or pooler`,
		`{"address":"db","lag":"1s"}`:      "lag is for the role replica alone",
		`{"address":"db","role":"replica","lag":"1h"}`:  "must be a duration of up to 10m0s",
		`{"address":"db","role":"replica","lag":"-1s"}`: "must be a duration of up to 10m0s",
		`{"address":"db","role":"replica","delay":"1"}`: `no setting "delay"`,
	} {
		err := json.Unmarshal([]byte(form), new(target.Endpoint))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v; want %q", form, err, want)
		}
	}
}

func TestEndpointList(t *testing.T) {
	t.Parallel()
	list := target.EndpointList{
		{Address: "a:1", Role: target.Writer},
		{Address: "b:1", Role: target.Replica, Lag: time.Second},
		{Address: "c:1", Role: target.Pooler},
		{Address: "d:1", Role: target.Replica, Lag: 3 * time.Second},
	}
	for n, want := range map[int]string{
		1: "",
		2: " The new one is refused at replica b:1 (lag 1s) until it has caught up.",
		4: " The new one is refused at replica b:1 (lag 1s), replica d:1 (lag 3s) until each has caught up.",
	} {
		if got := list[:n].Late(); got != want {
			t.Errorf("%d endpoints: %q; want %q", n, got, want)
		}
	}
	if got := list.Deciding().Addresses(); !slices.Equal(got, []string{"a:1", "c:1"}) {
		t.Errorf("Deciding = %v; a replica must not decide", got)
	}
	if got := list.Replicas().Addresses(); !slices.Equal(got, []string{"b:1", "d:1"}) {
		t.Errorf("Replicas = %v", got)
	}
	if got := list.Lag(); got != 3*time.Second {
		t.Errorf("Lag = %v; want the longest", got)
	}
	if got := (target.Login{Endpoints: []string{"c:1"}}).At(list).Addresses(); !slices.Equal(got, []string{"c:1"}) {
		t.Errorf("At = %v; want the endpoint of the login", got)
	}
	if got := (target.Login{}).At(list); len(got) != len(list) {
		t.Errorf("At of the zero login = %v; want all", got)
	}
}

// TestEndpointsComplete verifies the defaults and bounds of the setting verify.
func TestEndpointsComplete(t *testing.T) {
	t.Parallel()
	none := target.Endpoints{Address: "a"}
	if errs := none.Complete("1"); len(errs) > 0 || !slices.Equal(none.Verify.Addresses(), []string{"a:1"}) {
		t.Errorf("verify = %v, %v; want address alone", none.Verify, errs)
	}
	two := target.Endpoints{
		Address: "a",
		Verify:  target.EndpointList{{Address: "w", Role: target.Writer}, {Address: "r", Role: target.Replica}},
	}
	if errs := two.Complete("1"); len(errs) > 0 || !slices.Equal(two.Verify.Addresses(), []string{"w:1", "r:1"}) {
		t.Errorf("verify = %v, %v; want the default port", two.Verify, errs)
	}
	copies := target.Endpoints{Address: "a", Verify: target.EndpointList{{Address: "r", Role: target.Replica}}}
	if errs := copies.Complete("1"); len(errs) != 1 {
		t.Errorf("only replicas: %v; want one error, because nothing would decide about a credential", errs)
	}
}

// TestCheckLogin verifies that a member of a login that a kind does not follow is refused by name.
func TestCheckLogin(t *testing.T) {
	t.Parallel()
	k := target.Kind{Name: "postgresql"}.Following(target.LoginDatabase, target.LoginEndpoints)
	if err := k.CheckLogin(target.Login{Database: "app", Endpoints: []string{"a:1"}}); err != nil {
		t.Error(err)
	}
	err := k.CheckLogin(target.Login{Database: "app", Role: "owner"})
	want := "a target of kind postgresql does not follow role; its logins follow: database, endpoints"
	if err == nil || err.Error() != want {
		t.Errorf("the error is %v", err)
	}
	if err := (target.Kind{Name: "webhook"}).CheckLogin(target.Login{CertificateSecret: "s"}); err == nil {
		t.Error("a kind without settings of its logins takes a certificate")
	}
}
