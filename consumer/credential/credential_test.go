package credential_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/credential"
)

func secretOf(t *testing.T, value string) *consumer.Secret {
	t.Helper()
	_, c := consumertest.New(t, "s", "v1", value)
	s, err := c.Get(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value           string
		format          credential.Format
		account, secret string
	}{
		{`{"AccountName":"app","AccountPassword":"p1"}`, credential.Format{}, "app", "p1"},
		{`{"UserName":"root","PublicKey":"k","PrivateKey":"p2"}`, credential.Format{}, "root", "p2"},
		{`{"UserName":"root","Password":"p3"}`, credential.Format{}, "root", "p3"},
		{`{"AccessKeyId":"id","AccessKeySecret":"p4","GenerateTimestamp":"2026-01-02"}`, credential.Format{}, "id", "p4"},
		{`{"username":"app","password":"p5","host":"h","port":5432}`, credential.Format{}, "app", "p5"},
		{`{"client_id":"c","client_secret":"p6"}`, credential.Format{}, "c", "p6"},
		{`{"login":"app","pin":"p7","password":"other"}`, credential.Format{
			AccountMember: "login",
			SecretMember:  "pin",
		}, "app", "p7"},
		{`{"password":"p8"}`, credential.Format{Account: "fixed"}, "fixed", "p8"},
		{`{"AccountName":"said","password":"p9"}`, credential.Format{Account: "fixed"}, "said", "p9"},
		{"bare \"p10\"", credential.Format{Account: "fixed"}, "fixed", "bare \"p10\""},
		{`{"password":null,"secret":"p11"}`, credential.Format{}, "", "p11"},
		{`[1,2]`, credential.Format{}, "", "[1,2]"},
		{" {\"password\":\"p\\u00e9\"}", credential.Format{}, "", "pé"},
	} {
		got, err := tt.format.Read(secretOf(t, tt.value))
		if err != nil || got.Account != tt.account || got.Secret.Reveal() != tt.secret {
			t.Errorf("%s: account %q, secret %q, %v", tt.value, got.Account, got.Secret.Reveal(), err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value  string
		format credential.Format
		want   string
	}{
		{`{"nothing":"marker"}`, credential.Format{}, "none of the usual members"},
		{`{"password":{"deep":"marker"}}`, credential.Format{}, "none of the usual members"},
		{`{"password":""}`, credential.Format{}, "none of the usual members"},
		{`{"password":"marker"}`, credential.Format{SecretMember: "pin"}, `no member "pin"`},
		{`{"password":"marker"}`, credential.Format{AccountMember: "login"}, `no member "login"`},
		{`{"password":"marker"`, credential.Format{}, "is not JSON"},
		{`marker`, credential.Format{SecretMember: "pin"}, "is not a JSON object"},
	} {
		s := secretOf(t, tt.value)
		_, err := tt.format.Read(s)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "marker") {
			t.Errorf("%s: %v, want an error that says %q", tt.value, err, tt.want)
		}
	}
}

func ExampleFormat_Read() {
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("app/db", "v1", `{"login":"app","password":"correct horse"}`)
	c, err := consumer.New(context.Background(), consumer.Config{Client: endpoint})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()

	s, err := c.Get(context.Background(), "app/db")
	if err != nil {
		fmt.Println(err)
		return
	}
	cred, err := credential.Format{AccountMember: "login"}.Read(s)
	fmt.Println("log in as", cred.Account, "with", cred.Secret, err) // cred.Secret.Reveal() is the password
	// Output: log in as app with [redacted] <nil>
}
