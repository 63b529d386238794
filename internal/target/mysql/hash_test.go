package mysql

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/sensitive"
)

// TestSHA2Digest compares with digests that openssl passwd -5 has made.
func TestSHA2Digest(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		salt, password, want string
		rounds               int
	}{
		{"saltstring", "Hello world!", "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5", 5000},
		{"toolongsaltstrin", "This is just a test", "Un/5jzAHMgOGZ5.mWJpuVolil07guHPvOW8mGRcvxa5", 5000},
		{"saltsaltsaltsalt", "Zürich", "Xc86.qUEnRe9DMyEYMGuRP16MBAPh39DYQh4joMdSd9", 5000},
		{"abc", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "sWSqUH/k7TEPzX.dcr0pxMx49ncHuz9sHn6JV.4bdM0", 5000},
		{"saltstringsaltst", "Hello world!", "3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA", 10000},
	} {
		got := sha2Digest(tt.password, tt.salt, tt.rounds)
		if got != tt.want {
			t.Errorf("%q with salt %q: %s, want %s", tt.password, tt.salt, got, tt.want)
		}
	}
}

func TestHashes(t *testing.T) {
	t.Parallel()
	password := sensitive.New("it's \\ a pass")
	for _, plugin := range []string{native, cachingSHA2, sha256Crypt} {
		hash, err := newHash(plugin, password)
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
	// What SELECT PASSWORD('password') gives.
	if got := nativeHash(sensitive.New("password")); got != "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19" {
		t.Error(got)
	}
	for _, bad := range []string{"$A$005$short", "$A$ZZZ$" + strings.Repeat("x", 63), "$B$005$" + strings.Repeat("x", 63), "$A$000$" + strings.Repeat("x", 63)} {
		if match, known := matches(cachingSHA2, bad, password); match || known {
			t.Errorf("%q: %v, %v", bad, match, known)
		}
	}
	if _, err := newHash("auth_pam", password); err == nil {
		t.Error("a hash for a plugin without one")
	}
	if match, known := matches("ed25519", "x", password); match || known {
		t.Error("ed25519 is known")
	}
}

// TestHashOfMySQL is about the hash that a MySQL server has stored for IDENTIFIED BY 'foobar'.
func TestHashOfMySQL(t *testing.T) {
	t.Parallel()
	stored, err := hex.DecodeString("24412430303524031A69251C34295C4B35167C7F1E5A7B63091349503974624D34504B5A424679354856336868686F52485A736E4A733368786E427575516C73446469496537")
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
