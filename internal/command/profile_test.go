package command

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPlainHTTPIsRefused verifies that no access key and no value goes to an http:// endpoint off
// loopback unless the user says so.
func TestPlainHTTPIsRefused(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]bool{
		"203.0.113.9:80":                true,
		"https://203.0.113.9":           true,
		"http://127.0.0.1:80":           true,
		"http://[::1]:80":               true,
		"http://localhost:1":            true,
		"http://203.0.113.9:80":         false,
		"HTTP://203.0.113.9:80":         false,
		"http://127.0.0.1.example:80":   false,
		"http://localhost.example":      false,
		"http://127.0.0.1@203.0.113.9/": false,
		"http://":                       false,
		"http://[::ffff:203.0.113.9]":   false,
	} {
		p := Profile{Endpoint: endpoint, AccessKeyID: "id", AccessKeySecret: "secret-marker"}
		_, err := p.Config("test")
		if want != (err == nil) {
			t.Errorf("%s: %v", endpoint, err)
		}
		p.InsecureHTTP = true
		if _, err := p.Config("test"); err != nil {
			t.Errorf("%s, accepted: %v", endpoint, err)
		}
	}
}

// TestOpenProfileFileIsRefused verifies that access keys are not taken from a file that other users
// can read or write.
func TestOpenProfileFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "profiles.json")
	t.Setenv("KEYTURN_CONFIG_DIR", filepath.Dir(path))
	const file = `{"current":"a","profiles":{"a":{"endpoint":"h","access_key_id":"id","access_key_secret":"marker"}}}`
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o666: false, 0o644: false, 0o620: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := ReadProfiles()
		if want != (err == nil) ||
			err != nil &&
				(strings.Contains(err.Error(), "marker") || !strings.Contains(err.Error(), "chmod 600")) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, 64123, 64123); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReadProfiles(); err == nil {
		t.Error("a file of another user is used")
	}
}

// TestProfilesOfAnOlderRelease verifies that a file of profiles which the release 52c29d8 wrote is
// read whole, and is written again byte for byte, so that both releases can use it. The sample was
// made with profile import, profile set and profile use; its access keys are of no server.
func TestProfilesOfAnOlderRelease(t *testing.T) {
	sample, err := os.ReadFile("testdata/profiles-52c29d8.json")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "profiles.json")
	t.Setenv("KEYTURN_CONFIG_DIR", filepath.Dir(path))
	t.Setenv("KEYTURN_ENDPOINT", "")
	t.Setenv(ProfileVariable, "")
	if err := os.WriteFile(path, sample, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Profile{
		"": {
			Endpoint:        "http://127.0.0.1:7080",
			AccessKeyID:     "KTexampleExampleExample",
			AccessKeySecret: "worthless-secret-of-a-sample",
			Region:          "local",
		},
		"default": {
			Endpoint:        "127.0.0.1:7443",
			AccessKeyID:     "KTexampleExampleExample",
			AccessKeySecret: "worthless-secret-of-a-sample",
			Region:          "local",
			CAFile:          "/var/lib/keyturn/tls/ca.pem",
		},
		"remote": {
			Endpoint:        "https://kms.example.test:7443",
			AccessKeyID:     "KTother",
			AccessKeySecret: "another-worthless-secret",
			Region:          "eu-central",
		},
	} {
		if got, err := Resolve(name); err != nil || got != want {
			t.Errorf("profile %q: %+v, %v, want %+v", name, got, err, want)
		}
	}
	all, _, err := ReadProfiles()
	if err != nil {
		t.Fatal(err)
	}
	if err := all.Write(path); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(path); err != nil || string(again) != string(sample) {
		t.Errorf("%v; the file is written as\n%s", err, again)
	}
}
