package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/command"
)

// TestAddressesOfKinds verifies that every kind of target reports all the addresses to which it
// sends credentials, and nothing of a URL that may contain a token.
func TestAddressesOfKinds(t *testing.T) {
	t.Parallel()
	const hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFdPH8IiRLac87wutRCtJ3tT0Yomb/cYLZRqL1acJ4tN"
	const program = "/bin/true"
	configs := map[string]struct {
		config string
		want   []string
	}{
		"postgresql": {
			`{"address":"db","admin_address":"pg:6432","verify":["r1:5432"]}`,
			[]string{"db:5432", "pg:6432", "r1:5432"},
		},
		"mysql":   {`{"address":"db"}`, []string{"db:3306"}},
		"mariadb": {`{"address":"db:3307"}`, []string{"db:3307"}},
		"redis":   {`{"nodes":["a","b:1"],"verify":["c"]}`, []string{"a:6379", "b:1", "c:6379"}},
		"ssh": {
			`{"address":"host","verify":["replica:2222"],"host_keys":["` + hostKey + `"]}`,
			[]string{"host:22", "replica:2222"},
		},
		"ldap": {`{"address":"dir","verify":["replica"]}`, []string{"dir:636", "replica:636"}},
		"oauth": {
			`{"token_urls":["https://id.example.test/token"],
			  "set":{"method":"PUT","url":"https://a.example.test/{client_id}?token=hidden","body":"{secret}"},
			  "remove":{"method":"DELETE","url":"https://b.example.test/{client_id}","body":"{secret}"}}`,
			[]string{"https://id.example.test", "https://a.example.test", "https://b.example.test"},
		},
		"webhook": {
			`{"url":"https://hook.example.test/x?token=hidden","strategy":"single"}`,
			[]string{"https://hook.example.test"},
		},
		"rabbitmq": {
			`{"api":"https://mq.example.test:15671","amqp":["amqps://mq.example.test"]}`,
			[]string{"https://mq.example.test:15671", "amqps://mq.example.test"},
		},
		"command": {`{"command":"rotate","strategy":"single"}`, []string{program}},
	}
	commands := command.Config{
		User:     command.User{Self: true},
		Commands: map[string]command.Line{"rotate": {Path: program}},
	}
	for _, k := range TargetKinds(commands) {
		c, ok := configs[k.Name]
		if !ok {
			t.Errorf("%s: add a configuration with all its addresses", k.Name)
			continue
		}
		if got := k.AddressesOf([]byte(c.config)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q (%v)", k.Name, got, c.want, k.Check([]byte(c.config)))
		}
		if got := k.AddressesOf([]byte("{")); got != nil {
			t.Errorf("%s: %q of a configuration that cannot be read", k.Name, got)
		}
	}
}

// TestEveryKindHasAPage verifies that docs/targets has a page for each kind, which names the kind
// in its first paragraph.
func TestEveryKindHasAPage(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/targets/*.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]bool{}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		paragraphs := strings.SplitN(string(text), "\n\n", 3)
		if len(paragraphs) < 3 || !strings.Contains(strings.ToLower(paragraphs[1]), "kind") {
			t.Errorf("%s has no kind in its first paragraph", page)
			continue
		}
		for _, k := range TargetKinds(command.Config{}) {
			if strings.Contains(paragraphs[1], "`"+k.Name+"`") {
				described[k.Name] = true
			}
		}
	}
	for _, k := range TargetKinds(command.Config{}) {
		if !described[k.Name] {
			t.Errorf("no page in docs/targets names kind `%s` in its first paragraph", k.Name)
		}
	}
}

// TestKindsNameWhatAnEmergencyLeaves verifies that an emergency says at each kind what of the
// account was not touched, and that the block of docs/rotation.md to which the sentence about
// sessions refers has what ends them at each kind that has sessions.
func TestKindsNameWhatAnEmergencyLeaves(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/rotation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(page), "\n#### Sessions\n")
	block, _, _ = strings.Cut(block, "\n### ")
	block = strings.Join(strings.Fields(block), " ")
	const check = "keyturn rotation check NAME shows"
	want := map[string]struct {
		ends   string // sessions, in the block; empty for a kind without sessions
		leaves []string
	}{
		"postgresql": {"`pg_terminate_backend`", []string{"SECURITY DEFINER", "After a leak"}},
		"mysql":      {"MySQL and MariaDB: `KILL`", nil},
		"mariadb":    {"MySQL and MariaDB: `KILL`", nil},
		"redis":      {"Redis: `CLIENT KILL USER app`", []string{"Other passwords", check}},
		"ssh":        {"SSH: `pkill -KILL -u app`", []string{"Other keys and passwords", check}},
		"ldap":       {"LDAP: ", []string{"other values of userPassword", check}},
		"rabbitmq":   {"RabbitMQ: `rabbitmqctl close_all_user_connections app", []string{"shovels", check}},
		"oauth":      {"", []string{"Other secrets of the client", "Access tokens", check}},
		"webhook":    {"", []string{"other credentials and open sessions"}},
		"command":    {"", []string{"other credentials and open sessions"}},
	}
	for _, k := range TargetKinds(command.Config{}) {
		w, ok := want[k.Name]
		if !ok {
			t.Errorf("%s: what an emergency leaves is not known here", k.Name)
		}
		text := strings.Join(k.Leaves, " ")
		if sessions := slices.Contains(k.Leaves, target.OpenSessions); sessions != (w.ends != "") {
			t.Errorf("%s: the sentence about open sessions is there: %v, want %v", k.Name, sessions, w.ends != "")
		}
		if !strings.Contains(block, w.ends) {
			t.Errorf("%s: the block Sessions of docs/rotation.md lacks %q", k.Name, w.ends)
		}
		for _, part := range w.leaves {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q lacks %q", k.Name, text, part)
			}
		}
	}
}
