package cli

import (
	"slices"
	"testing"

	"github.com/keyturn/keyturn/internal/target/command"
)

// TestAddressesOfKinds: every kind of target says where it sends credentials, and nothing of a URL
// that may hold a token.
func TestAddressesOfKinds(t *testing.T) {
	t.Parallel()
	configs := map[string]struct {
		config string
		want   []string
	}{
		"postgresql": {`{"address":"db","admin_address":"pg:6432","verify":["r1:5432"]}`, []string{"db:5432", "pg:6432", "r1:5432"}},
		"mysql":      {`{"address":"db"}`, []string{"db:3306"}},
		"mariadb":    {`{"address":"db:3307"}`, []string{"db:3307"}},
		"redis":      {`{"nodes":["a","b:1"]}`, []string{"a:6379", "b:1"}},
		"webhook":    {`{"url":"https://hook.example.test/x?token=hidden","strategy":"single"}`, []string{"https://hook.example.test"}},
		"rabbitmq":   {`{"api":"https://mq.example.test:15671","amqp":["amqps://mq.example.test"]}`, []string{"https://mq.example.test:15671", "amqps://mq.example.test"}},
	}
	for _, k := range targetKinds(command.Config{}) {
		if k.Addresses == nil {
			t.Errorf("kind %s does not say where it sends credentials", k.Name)
			continue
		}
		c, ok := configs[k.Name]
		if got := k.AddressesOf([]byte(c.config)); ok && !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", k.Name, got, c.want)
		}
		if got := k.AddressesOf([]byte("{")); got != nil {
			t.Errorf("%s: %q of a configuration that cannot be read", k.Name, got)
		}
	}
}
