package consumer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

func secretOf(value string) *Secret {
	return newSecret("db", &kms.GetSecretValueResponse{
		SecretName:    "db",
		VersionID:     "v1",
		SecretData:    sensitive.New(value),
		VersionStages: []string{"ACSCurrent"},
	}, time.Now(), SourceServer)
}

func TestMember(t *testing.T) {
	t.Parallel()
	s := secretOf(`{"user":"app","password":"p\"q\u00e9","port":5432,"tls":true,"more":{"a":1},"none":null,"empty":""}`)
	for name, want := range map[string]string{
		"user":     "app",
		"password": `p"qé`,
		"port":     "5432",
		"tls":      "true",
		"more":     `{"a":1}`,
		"none":     "null",
		"empty":    "",
	} {
		if got, err := s.Member(name); err != nil || got.Reveal() != want {
			t.Errorf("Member(%q) = %q, %v; want %q", name, got.Reveal(), err, want)
		}
	}
	if _, err := s.Member("User"); err == nil ||
		!strings.Contains(err.Error(), `secret "db", version v1, has no member "User"`) {
		t.Errorf("Member of what is not there = %v", err)
	}
}

// TestErrorsShowNoValue holds it for values that are not of the wanted form; package json quotes
// what it reads.
func TestErrorsShowNoValue(t *testing.T) {
	t.Parallel()
	for _, value := range []string{
		"hunter2", `"hunter2"`, `["hunter2"]`, "null", `{"port":"hunter2"`, `{"port":"hunter2"}`,
		`{"port":4242424242424242}`, "",
	} {
		s := secretOf(value)
		var into struct{ Port int8 }
		err := s.Decode(&into)
		_, errMember := s.Member("other")
		if errMember == nil || err == nil && value != "null" {
			t.Errorf("%s: Decode = %v, Member = %v; want errors", value, err, errMember)
		}
		if text := fmt.Sprint(err, errMember); strings.Contains(text, "hunter2") || strings.Contains(text, "42424242") ||
			strings.Contains(text, "'h'") {
			t.Errorf("an error shows the value: %s", text)
		}
		if text := fmt.Sprintf("%v %+v %#v",
			s, s, *s); strings.Contains(text, "hunter2") || strings.Contains(text, "42424242") {
			t.Errorf("a secret shows its value: %s", text)
		}
	}
	if err := secretOf("{}").Decode(nil); err == nil || !strings.Contains(err.Error(), "Unmarshal(nil)") {
		t.Errorf("Decode(nil) = %v", err)
	}
	if err := secretOf(`{"port":"x"}`).Decode(&struct{ Port int8 }{}); err == nil ||
		!strings.Contains(err.Error(), `member "Port" is not a int8`) {
		t.Errorf("Decode = %v, want it to name the member", err)
	}
}

func TestRaw(t *testing.T) {
	t.Parallel()
	s := secretOf("one")
	raw := s.Raw()
	if raw.SecretData.Reveal() != "one" || raw.VersionID != "v1" {
		t.Errorf("Raw = %+v", raw)
	}
	raw.VersionStages[0] = "changed"
	raw.VersionID = "changed"
	if s.Raw().VersionID != "v1" || s.Raw().VersionStages[0] != "ACSCurrent" || s.Stages[0] != "ACSCurrent" {
		t.Error("a change of what Raw returned is seen in the secret")
	}
}
