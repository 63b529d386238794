package target_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

func TestErrorsHoldNoSecret(t *testing.T) {
	t.Parallel()
	secret := sensitive.New(`p"w d/§marker`)
	for _, spelled := range []string{
		secret.Reveal(),
		url.QueryEscape(secret.Reveal()),
		url.PathEscape(secret.Reveal()),
		`p\"w d/§marker`,
	} {
		err := target.Failed(target.Refused, "E1", "the target says: "+spelled+" is too short", secret)
		if strings.Contains(err.Error(), "marker") || !strings.Contains(err.Error(), "[redacted] is too short (E1)") {
			t.Errorf("of %q the error says %q", spelled, err)
		}
	}
	cause := &url.Error{
		Op:  "Get",
		URL: "http://u:topsecret@h/",
		Err: errors.New("connection refused"),
	}
	err := target.NotSent("dial", cause)
	if err.Error() != "dial: no answer" || err.Detail != "connection refused" ||
		target.ClassOf(fmt.Errorf("apply: %w", err)) != target.Unreachable {
		t.Errorf("got %q of class %v", err, target.ClassOf(err))
	}
	if target.ClassOf(errors.New("anything")) != target.Unknown {
		t.Error("an error without a class must count as no answer")
	}
}

// TestCleanScrubsBeforeItCuts verifies that a cut does not leave the beginning of a secret.
func TestCleanScrubsBeforeItCuts(t *testing.T) {
	t.Parallel()
	got := target.Clean("a\r\n\x00b  "+strings.Repeat("x", 290)+"topsecret and more", sensitive.New("topsecret"))
	if !strings.HasPrefix(got, "a b xx") ||
		strings.Contains(got, "top") ||
		!strings.HasSuffix(got, "…") ||
		len([]rune(got)) != 301 {
		t.Errorf("Clean = %q", got)
	}
	got = target.SaidAtEnd("topsecret"+strings.Repeat("x", 295)+"\n", sensitive.New("topsecret"))
	if strings.Contains(got, "secret") || !strings.HasPrefix(got, "…cted]xx") {
		t.Errorf("SaidAtEnd = %q", got)
	}
}

func TestPasswordRule(t *testing.T) {
	t.Parallel()
	for _, rule := range []target.PasswordRule{
		{},
		{Length: 12},
		{Length: 128, Punctuation: "-_"},
		{Length: 12, Punctuation: "!"},
	} {
		if err := rule.Check(); err != nil {
			t.Errorf("%+v: %v", rule, err)
		}
		seen := map[string]bool{}
		for range 200 {
			p, err := rule.New(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			s := p.Reveal()
			want := rule.Length
			if want == 0 {
				want = target.DefaultLength
			}
			if len(s) != want ||
				strings.Trim(s, target.Alphabet+rule.Punctuation) != "" ||
				seen[s] ||
				!strings.ContainsAny(s, "abcdefghijklmnopqrstuvwxyz") ||
				!strings.ContainsAny(s, "0123456789") ||
				rule.Punctuation != "" && !strings.ContainsAny(s, rule.Punctuation) {
				t.Errorf("%+v: a password breaks the rule", rule)
			}
			seen[s] = true
		}
	}
	for _, rule := range []target.PasswordRule{
		{Length: 11},
		{Length: 129},
		{Punctuation: "'"},
		{Punctuation: " "},
		{Punctuation: "a"},
		{Punctuation: "é"},
	} {
		if rule.Check() == nil {
			t.Errorf("%+v is accepted", rule)
		}
	}
	if _, err := (target.PasswordRule{}).New(bytes.NewReader(nil)); err == nil {
		t.Error("a password was made without randomness")
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	type config struct {
		target.Endpoints
		TLS   target.TLS `json:"tls"`
		Auth  []string   `json:"auth"`
		Sizes []int      `json:"sizes"`
		Deep  struct {
			Auth []string `json:"auth"`
		} `json:"deep"`
		target.PasswordRule
	}
	for text, want := range map[string]string{
		`{"address":"h","tls":{"off":true}}`: "",
		``:                                   "",
		`{"adress":"h"}`:                     `there is no setting "adress"`,
		`{"address":1}`:                      "address is of type number; use a string",
		`{"password_length":"x"}`:            "password_length is of type string; use a whole number",
		`{"tls":{"off":1}}`:                  "tls.off is of type number; use true or false",
		`{"tls":[]}`:                         "tls is of type array; use an object",
		`{"address":"h"} {}`:                 "the configuration is not one JSON object",
		`{"sizes":"1"}`:                      "sizes is of type string; use a list",
		`{"auth":{}}`:                        "auth is of type object; use a list",
		`[]`:                                 "",
	} {
		var c config
		err := target.Decode(json.RawMessage(text), &c)
		if text == `[]` {
			if err == nil {
				t.Error("an array is accepted")
			}
			continue
		}
		if fmt.Sprint(err) != want && (want != "" || err != nil) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// TestDecodeTakesOneForAList verifies that a string stands for a list of it, and not for a part.
func TestDecodeTakesOneForAList(t *testing.T) {
	t.Parallel()
	var got, want struct {
		target.Endpoints
		Auth []string `json:"auth"`
		Deep struct {
			Auth []string `json:"auth"`
		} `json:"deep"`
	}
	if err := target.Decode(json.RawMessage(`{"auth":"md5","verify":"b","address":"a","deep":{"auth":"x, y"}}`),
		&got); err != nil {
		t.Fatal(err)
	}
	want.Address, want.Auth, want.Deep.Auth = "a", []string{"md5"}, []string{"x, y"}
	want.Verify = target.EndpointList{{Address: "b", Role: got.Verify[0].Role}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"db":       "db:5432",
		"db:1":     "db:1",
		"::1":      "[::1]:5432",
		"[::1]:6":  "[::1]:6",
		"":         "",
		"a b":      "",
		"u@h":      "",
		"db:99999": "",
		"db:0":     "",
	} {
		got, err := target.Address(text, "5432")
		if got != want || (err == nil) != (want != "") {
			t.Errorf("Address(%q) = %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	if (target.TLS{}).Check() != nil {
		t.Error("the zero value is refused")
	}
	for _, wrong := range []target.TLS{{Off: true, CA: "x"}, {CA: "x"}} {
		if wrong.Check() == nil {
			t.Errorf("%+v is accepted", wrong)
		}
	}
	if (target.TLS{Off: true}).Config("h") != nil {
		t.Error("off has a configuration")
	}
	if got := (target.TLS{}).Config("h").ServerName; got != "h" {
		t.Errorf("the name to verify is %q, want the host of the address", got)
	}
	if got := (target.TLS{ServerName: "n"}).Config("h").ServerName; got != "n" {
		t.Errorf("the name to verify is %q, want server_name", got)
	}
}
