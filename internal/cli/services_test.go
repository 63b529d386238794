package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/settings"
)

// noAddress are the placeholders of settings that name nothing that can be connected to.
var noAddress = []string{
	"", "FILE", "DIR", "NAME", "TEXT", "N", "GID", "CIDR", "DURATION", "REGION", "USER", "RULE", "LEVEL", "FORMAT",
	"NAME=/PATH ARG…",
}

// TestTargetsReachNoServiceOfASetting verifies for each setting of the server that holds an address
// to connect to that targets are refused that address. A setting with a placeholder of another form
// must be added here.
func TestTargetsReachNoServiceOfASetting(t *testing.T) {
	t.Parallel()
	const address = "192.0.2.7:4711"
	probed := 0
	for _, setting := range server.NewSettings().Table() {
		name, placeholder := setting.Name, setting.Placeholder
		if slices.Contains(noAddress, placeholder) {
			continue
		}
		if strings.HasPrefix(name, "listen") {
			continue // what the server itself listens at is refused as such
		}
		value := strings.NewReplacer("URL", "https://"+address, "HOST:PORT", address).Replace(placeholder)
		if !strings.Contains(value, address) {
			t.Errorf("setting %s: the placeholder %q must be one of an address, or be in noAddress", name, placeholder)
			continue
		}
		environ := []string{settings.Variable(name) + "=" + value}
		if name == "peer-listen" {
			environ = append(environ, "KEYTURN_CLUSTER_PEERS=a=https://198.51.100.1:1")
		}
		set := server.NewSettings()
		if err := set.Load(nil, environ, foreignVariable); err != nil {
			t.Fatal(err)
		}
		_ = set.Resolve() // a setting alone may be incomplete
		if !slices.Contains(set.Services(), address) {
			t.Errorf("setting %s: targets may connect to what it names; its services are %q", name, set.Services())
		}
		probed++
	}
	if probed < 6 {
		t.Errorf("%d settings were probed", probed)
	}
}
