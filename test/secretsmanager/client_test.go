package secretsmanager_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestRead verifies that the client reads text, JSON, binary values and a secret's metadata.
func TestRead(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "s3cret value, with = and ü")
	create(t, s, "app/json", `{"user":"a","password":"p"}`)
	raw := base64.StdEncoding.EncodeToString([]byte{0, 1, 2, 0xff})
	_, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "app/key", VersionID: "v1", SecretData: sensitive.New(raw), SecretDataType: kms.DataBinary,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := at(s, s.Endpoint)
	c.TTL = map[string]int64{"app/db": forever}
	a := start(t, c)
	a.reads("app/db", "s3cret value, with = and ü")
	a.reads("app/json", `{"user":"a","password":"p"}`)
	if got := a.do("binary", "app/key"); got.Error != "" || got.Value != raw {
		t.Errorf("GetBinaryValue: %d bytes, %s; want the text that was stored, which is not decoded",
			len(got.Value), got.Error)
	}
	if got := a.do("info", "app/db"); got.Version != "v1" || got.Type != "Generic" || got.DataType != "text" ||
		got.Created == "" {
		t.Errorf("version %q, type %q, data type %q, created %q, error %q", got.Version, got.Type, got.DataType,
			got.Created, got.Error)
	}
	if got := a.do("get", "none"); got.Code != "Forbidden.ResourceNotFound" || got.Status != 404 {
		t.Errorf("an unknown name: %s; want Forbidden.ResourceNotFound", got.Error)
	}
}

// regions is cache_client_region_id with a server's own endpoint.
func regions(s *keyturntest.Server) string {
	return fmt.Sprintf(`[{"regionId":%q,"endpoint":%q,"vpc":false}]`, s.Region, s.Endpoint)
}

// TestConfiguration verifies that the endpoint comes from a properties file, or from the
// environment of a program that configures none.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value")
	settings := []string{
		"credentials_type=ak", "credentials_access_key_id=" + s.Credentials.AccessKeyID,
		"credentials_access_secret=" + s.Credentials.AccessKeySecret.Reveal(), "cache_client_region_id=" + regions(s),
	}
	file := filepath.Join(t.TempDir(), "secretsmanager.properties")
	if err := os.WriteFile(file, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, setup{ConfigFile: file}).reads("app/db", "value")
	start(t, setup{FromEnvironment: true, env: settings}).reads("app/db", "value")

	// A line with a second = is dropped without a word.
	settings[2] += "="
	if err := os.WriteFile(file, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := launch(t, setup{
		ConfigFile: file,
	}); !strings.Contains(a.built.Error, "credentials config missing required parameters") {
		t.Errorf("with = in the key's secret: %q; want an error that says that it is missing", a.built.Error)
	}
}

// TestTrust verifies that the client accepts any certificate, whatever the system trusts.
func TestTrust(t *testing.T) {
	t.Parallel()
	s, other := keyturntest.Start(t), keyturntest.Start(t)
	create(t, s, "app/db", "value")
	c := at(s, s.Endpoint)
	c.env = []string{"SSL_CERT_FILE=" + other.CAFile, "SSL_CERT_DIR=" + t.TempDir()}
	start(t, c).reads("app/db", "value")
}

// TestCache verifies that the client returns a cached value without the server, until it refreshes.
func TestCache(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	a := start(t, at(s, s.Endpoint))
	a.reads("app/db", "value 1")
	rotate(t, s, "app/db", "v2", "value 2")
	a.reads("app/db", "value 1")
	if got := a.do("refresh", "app/db"); got.Error != "" {
		t.Fatalf("RefreshNow: %s", got.Error)
	}
	a.reads("app/db", "value 2")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	a.reads("app/db", "value 2")
	if got := a.do("refresh", "app/db"); got.Error == "" {
		t.Error("RefreshNow succeeds though the server is away")
	}
	a.reads("app/db", "value 2")
}

// TestRefreshAfterRotation verifies that a rotation reaches the client automatically, within the
// time to live that it was given.
func TestRefreshAfterRotation(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	c := at(s, s.Endpoint)
	c.TTL = map[string]int64{"app/db": 50}
	a := start(t, c)
	a.reads("app/db", "value 1")
	rotate(t, s, "app/db", "v2", "value 2")
	a.untilReads("app/db", "value 2", false)
}

// TestTTLInTheValue verifies that the member ttl of a JSON value overrides the configured time to
// live, and that the client ignores the configured name of that member.
func TestTTLInTheValue(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", `{"password":"one","ttl":50,"refresh":3600000}`)
	create(t, s, "app/other", `{"password":"one","ttl":3600000,"refresh":50}`)
	c := at(s, s.Endpoint)
	c.TTL, c.JSONTTL = map[string]int64{"app/db": forever, "app/other": 50}, "refresh"
	a := start(t, c)
	rotate(t, s, "app/other", "v2", `{"password":"two"}`)
	rotate(t, s, "app/db", "v2", `{"password":"two","ttl":50}`)
	a.untilReads("app/db", `{"password":"two","ttl":50}`, false)
	a.reads("app/other", `{"password":"one","ttl":3600000,"refresh":50}`)
}

// TestFileCache verifies that every user can read the file cache, and that it has the key beside
// the encrypted value.
func TestFileCache(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "value 1")
	dir := t.TempDir()
	c := at(s, s.Endpoint)
	c.FileCache = dir
	start(t, c).reads("app/db", "value 1")
	file := filepath.Join(dir, "app", "db", "stage_acscurrent.json")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o044 == 0 {
		t.Errorf("the file has mode %v: the client protects it now, and docs/clients/go.md says otherwise", info.Mode())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var kept struct{ SecretInfo struct{ SecretValue string } }
	if err := json.Unmarshal(data, &kept); err != nil {
		t.Fatal(err)
	}
	sealed, err := base64.StdEncoding.DecodeString(kept.SecretInfo.SecretValue)
	if err != nil || len(sealed) < 32+16+16 {
		t.Errorf("sealed value: %d bytes, %v; want the key of 32, the start vector of 16 and a block", len(sealed), err)
	}

	// A process that starts while the server is away lives from the file, unless it loads secrets
	// ahead.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	start(t, c).reads("app/db", "value 1")
	c.TTL = map[string]int64{"app/db": forever}
	if a := launch(t, c); a.built.Error == "" {
		t.Error("a client that loads a secret ahead starts while the server is away")
	}
}

// TestLog verifies that the client logs the first character of a value that is not JSON, at every
// read.
func TestLog(t *testing.T) {
	t.Parallel()
	s := keyturntest.Start(t)
	create(t, s, "app/db", "zebra value")
	a := start(t, at(s, s.Endpoint))
	a.reads("app/db", "zebra value")
	if a.logged("ParseTTL", "invalid character 'z'") == 0 {
		t.Error("the client no longer logs parts of a value, but docs/clients/go.md says otherwise")
	}
	if a.logged("zebra") != 0 {
		t.Error("the client logs a whole value")
	}
}
