package kubernetes_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/agents"
	"github.com/keyturn/keyturn/test/support"
)

const (
	token = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// page are the chart's values and the manifests of docs/kubernetes.md, by kind and name.
func page(t *testing.T) (values object, manifests map[string]object) {
	t.Helper()
	text, err := os.ReadFile("../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	manifests = map[string]object{}
	for _, part := range strings.Split(string(text), "```yaml")[1:] {
		block, _, _ := strings.Cut(part, "\n```")
		info, block, _ := strings.Cut(block, "\n")
		for _, document := range strings.Split(block, "\n---\n") {
			parsed, err := yaml.Parser().Unmarshal([]byte(document))
			if err != nil {
				t.Fatalf("a manifest of the page: %v\n%s", err, document)
			}
			if strings.TrimSpace(info) == "values" {
				values = parsed
				continue
			}
			manifests[object(parsed).text("kind")+"/"+object(parsed).text("metadata", "name")] = parsed
		}
	}
	want := []string{
		"ClusterSecretStore/keyturn", "ConfigMap/keyturn-agent", "ExternalSecret/api-token", "ExternalSecret/db",
		"Secret/keyturn-agent-key", "Secret/keyturn-agent-token",
	}
	if got := slices.Sorted(maps.Keys(manifests)); !slices.Equal(got, want) || values == nil {
		t.Fatalf("the page has %v", got)
	}
	return values, manifests
}

// TestChart verifies that the container has every file that the agent's configuration names, each
// from an object of the page.
func TestChart(t *testing.T) {
	t.Parallel()
	values, manifests := page(t)
	content := map[string]object{} // of each volume, by name
	for _, v := range values["extraVolumes"].([]any) {
		volume := object(v.(map[string]any))
		made := manifests["ConfigMap/"+volume.text("configMap", "name")]
		members := "data"
		if name := volume.text("secret", "secretName"); name != "" {
			made, members = manifests["Secret/"+name], "stringData"
			if mode, _ := volume.at("secret", "defaultMode").(int); mode&0o007 != 0 {
				t.Errorf("volume %s can be read by everybody, which the agent refuses", volume.text("name"))
			}
		}
		if made == nil || made.text("metadata", "namespace") != "external-secrets" {
			t.Fatalf("volume %s is of nothing that the page makes there", volume.text("name"))
		}
		content[volume.text("name")], _ = made[members].(map[string]any)
	}
	container := object(values["extraContainers"].([]any)[0].(map[string]any))
	files := map[string]bool{}
	for _, m := range container["volumeMounts"].([]any) {
		mount := object(m.(map[string]any))
		if mount["subPath"] != nil {
			t.Errorf("mount %s has a subPath, which never updates", mount.text("name"))
		}
		for name := range content[mount.text("name")] {
			files[mount.text("mountPath")+"/"+name] = true
		}
	}
	config, err := yaml.Parser().Unmarshal([]byte(manifests["ConfigMap/keyturn-agent"].text("data", "agent.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	agent := object(config)
	args := container["args"].([]any)
	for _, file := range []string{
		args[len(args)-1].(string), agent.text("ca_file"), agent.text("access_key", "file"), agent.text("http", "token_file"),
	} {
		if !files[file] {
			t.Errorf("the container has no %s; it has %v", file, slices.Sorted(maps.Keys(files)))
		}
	}
}

// site is the page at work: a server, an agent that its ConfigMap configures, and the operator.
type site struct {
	server    *keyturntest.Server
	operator  *operator
	manifests map[string]object
}

func start(t *testing.T) *site {
	t.Helper()
	_, manifests := page(t)
	s := &site{server: keyturntest.Start(t), manifests: manifests}
	s.put(t, "shop/db", "v1", `{"AccountName":"shop","AccountPassword":"one","Port":5432}`, kms.DataText)
	s.put(t, "shop/api-token", "v1", "token one", kms.DataText)

	dir := t.TempDir()
	for _, folder := range []string{"config", "key", "token"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ca, err := os.ReadFile(s.server.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := json.Marshal(map[string]string{
		"AccessKeyId":     s.server.Credentials.AccessKeyID,
		"AccessKeySecret": s.server.Credentials.AccessKeySecret.Reveal(),
	})
	if err != nil {
		t.Fatal(err)
	}
	config := strings.NewReplacer(
		"kms.example.test:7443", s.server.Endpoint,
		"127.0.0.1:7490", "127.0.0.1:0",
		"/etc/keyturn", dir,
	).Replace(manifests["ConfigMap/keyturn-agent"].text("data", "agent.yaml"))
	for name, text := range map[string]string{
		"config/agent.yaml": config, "config/ca.pem": string(ca), "key/key.json": string(key), "token/token": token,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	places, _ := agents.Run(t, filepath.Join(dir, "config", "agent.yaml"), "http")
	at := places["http"]

	store := manifests["ClusterSecretStore/keyturn"]
	webhook := store.at("spec", "provider", "webhook").(map[string]any)
	webhook["url"] = strings.Replace(webhook["url"].(string), "127.0.0.1:7490", at, 1)
	// as it comes from a file
	manifests["Secret/keyturn-agent-token"]["stringData"] = map[string]any{"token": token + "\n"}
	s.operator = &operator{
		client: &http.Client{Timeout: support.Patience}, store: store,
		secrets: map[string]object{"external-secrets/keyturn-agent-token": manifests["Secret/keyturn-agent-token"]},
	}
	t.Cleanup(s.operator.client.CloseIdleConnections)
	return s
}

func (s *site) put(t *testing.T, name, version, data, kind string) {
	t.Helper()
	ctx := t.Context()
	_, err := s.server.Client.PutSecretValue(ctx, &kms.PutSecretValueRequest{
		SecretName:     name,
		VersionID:      version,
		SecretData:     sensitive.New(data),
		SecretDataType: kind,
	})
	if errors.Is(err, kms.ErrResourceNotFound) {
		_, err = s.server.Client.CreateSecret(ctx, &kms.CreateSecretRequest{
			SecretName:     name,
			VersionID:      version,
			SecretData:     sensitive.New(data),
			SecretDataType: kind,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// gives holds what an ExternalSecret of the page comes to.
func (s *site) gives(t *testing.T, name string, want map[string]string) {
	t.Helper()
	got, err := s.operator.sync(s.manifests["ExternalSecret/"+name])
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("%s: the Secret has %v, and not what the test expects there", name, slices.Sorted(maps.Keys(got)))
	}
}

// db is the content of the Secret db with a password.
func db(password string) map[string]string {
	return map[string]string{
		"DB_USER": "shop", "DB_PASSWORD": password, "pgpass": "db.example.test:5432:shop:shop:" + password,
	}
}

// TestSync verifies that the Secrets have the values, follow a rotation, and keep their values
// while the server is unreachable.
func TestSync(t *testing.T) {
	t.Parallel()
	s := start(t)
	for _, name := range []string{"db", "api-token"} {
		external := s.manifests["ExternalSecret/"+name]
		if !s.operator.allowed(external.text("metadata", "namespace")) {
			t.Errorf("%s may not use the store", name)
		}
		if external.text("spec", "target", "deletionPolicy") != "Retain" {
			t.Errorf("%s does not keep its Secret", name)
		}
	}
	s.gives(t, "db", db("one"))
	s.gives(t, "api-token", map[string]string{"token": "token one"})

	s.put(t, "shop/db", "v2", `{"AccountName":"shop","AccountPassword":"two"}`, kms.DataText)
	support.Until(t, "the rotation to reach the Secret", func() bool {
		got, err := s.operator.sync(s.manifests["ExternalSecret/db"])
		if err != nil {
			t.Fatal(err)
		}
		return maps.Equal(got, db("two"))
	})
	if err := s.server.Stop(); err != nil {
		t.Fatal(err)
	}
	s.gives(t, "db", db("two"))
	s.gives(t, "api-token", map[string]string{"token": "token one"})
}

// TestRefusals verifies that a secret the agent does not serve is missing for the operator, and
// that a wrong token fails and changes nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.put(t, "shop/other", "v1", "not for everybody", kms.DataText)
	if _, err := s.operator.one("shop/other"); !errors.Is(err, errNoSecret) {
		t.Errorf("a secret that the agent does not hold: %v", err)
	}
	s.manifests["Secret/keyturn-agent-token"]["stringData"] = map[string]any{"token": strings.ToUpper(token)}
	if _, err := s.operator.one("shop/api-token"); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("with another token: %v; want status 401", err)
	}
}

// TestValue verifies that the other form of the store returns bytes, text and members.
func TestValue(t *testing.T) {
	t.Parallel()
	s := start(t)
	raw := "\x00\x01\xff"
	s.put(t, "shop/api-token", "v2", base64.StdEncoding.EncodeToString([]byte(raw)), kms.DataBinary)
	webhook := s.operator.store.at("spec", "provider", "webhook").(map[string]any)
	webhook["url"] = webhook["url"].(string) + "/value"
	webhook["result"] = map[string]any{}
	s.gives(t, "db", db("one"))
	support.Until(t, "the bytes", func() bool {
		got, err := s.operator.one("shop/api-token")
		if err != nil {
			t.Fatal(err)
		}
		return got == raw
	})
}
