package mysql

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/sensitive"
)

func TestHashes(t *testing.T) {
	t.Parallel()
	password := sensitive.New("it's \\ a pass")
	for _, plugin := range []string{native, cachingSHA2, sha256Crypt, ed25519} {
		hash, err := newHash(method{plugin: plugin}, password)
		if err != nil || strings.ContainsAny(hash, "'\\\x00") {
			t.Fatalf("%s: %q, %v", plugin, hash, err)
		}
		if plugin == cachingSHA2 && (len(hash) != 70 || !strings.HasPrefix(hash, "$A$005$")) {
			t.Errorf("%s: %q", plugin, hash)
		}
		if match, known := matches(plugin, hash, password); !match || !known {
			t.Errorf("%s: the password does not match its hash", plugin)
		}
		for _, wrong := range []string{"", "it's \\ a pasS"} {
			if match, known := matches(plugin, hash, sensitive.New(wrong)); match || !known {
				t.Errorf("%s: %q matches", plugin, wrong)
			}
		}
		if match, _ := matches(plugin, "", password); match {
			t.Errorf("%s: a password matches an account that has none", plugin)
		}
	}
	// MariaDB answers this to SELECT PASSWORD('password').
	if got := nativeHash(sensitive.New("password")); got != "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19" {
		t.Error(got)
	}
	// MariaDB 10.11 stores this for IDENTIFIED VIA ed25519 USING PASSWORD('one').
	if got := ed25519Hash(sensitive.New("one")); got != "QMFUGXXbqUn9JtkZDNkF1tCJAp89yvS5IrjGlW4yCoI" {
		t.Error(got)
	}
	slow, err := newHash(method{cachingSHA2, "$A$00A$" + strings.Repeat("x", 63)}, password)
	if err != nil || !strings.HasPrefix(slow, "$A$00A$") {
		t.Errorf("the rounds of a hash are not kept: %q, %v", slow, err)
	}
	rest := strings.Repeat("x", 63)
	for _, bad := range []string{"$A$005$short", "$A$ZZZ$" + rest, "$B$005$" + rest, "$A$000$" + rest} {
		if match, known := matches(cachingSHA2, bad, password); match || known {
			t.Errorf("%q: %v, %v", bad, match, known)
		}
	}
	if _, err := newHash(method{plugin: "auth_pam"}, password); err == nil {
		t.Error("a hash for a plugin without one")
	}
	if match, known := matches("parsec", "x", password); match || known {
		t.Error("parsec is known")
	}
}

// TestHashOfMySQL compares with the hash that a MySQL server has stored for IDENTIFIED BY 'foobar'.
func TestHashOfMySQL(t *testing.T) {
	t.Parallel()
	stored, err := hex.DecodeString("24412430303524031A69251C34295C4B35167C7F1E5A7B6309134950397462" +
		"4D34504B5A424679354856336868686F52485A736E4A733368786E427575516C73446469496537")
	if err != nil {
		t.Fatal(err)
	}
	if match, known := matches(cachingSHA2, string(stored), sensitive.New("foobar")); !match || !known {
		t.Errorf("the password does not match: %v, %v", match, known)
	}
	if match, _ := matches(cachingSHA2, string(stored), sensitive.New("foobaz")); match {
		t.Error("another password matches")
	}
}
