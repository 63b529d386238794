package keyturn_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// linked lists the commands and libraries that run beside applications, with the third-party
// modules that each may link. None may link the server.
var linked = map[string][]string{
	"kms":            {},
	"ram":            {},
	"consumer":       {},
	"internal/agent": agentModules,
	"cmd/keyturn-agent": slices.Concat(agentModules, []string{
		"github.com/alecthomas/kong", "golang.org/x/term", "golang.org/x/net", "golang.org/x/time",
		"github.com/google/uuid",
	}),
}

// agentModules are needed for the metrics of the agent and the format of its configuration.
var agentModules = []string{
	"github.com/prometheus", "github.com/beorn7/perks", "github.com/cespare/xxhash", "github.com/munnerz/goautoneg",
	"google.golang.org/protobuf", "go.yaml.in/yaml", "github.com/knadh/koanf/parsers/yaml", "golang.org/x/sys",
}

// serverOnly are packages that hold the store, or decide with it.
var serverOnly = []string{
	"internal/api", "internal/server", "internal/store", "internal/envelope", "internal/rotator", "internal/audit",
}

// TestClientsLinkNoServer verifies that the packages that run beside applications link only the
// modules that they need.
func TestClientsLinkNoServer(t *testing.T) {
	t.Parallel()
	for root, modules := range linked {
		imports := importsOf(t, root)
		for path := range imports {
			own, ours := strings.CutPrefix(path, module)
			first, _, _ := strings.Cut(path, "/")
			switch {
			case ours && !slices.Contains(serverOnly, own):
			case !ours && !strings.Contains(first, "."):
			case !ours && slices.ContainsFunc(modules, func(m string) bool { return strings.HasPrefix(path, m) }):
			default:
				t.Errorf("%s links %s: %s", root, path, strings.Join(chain(imports, module+root, path), " > "))
			}
		}
	}
}

// importsOf returns what each package that root links imports.
func importsOf(t *testing.T, root string) map[string][]string {
	t.Helper()
	format := `{{.ImportPath}} {{join .Imports " "}}`
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, "./"+root).Output()
	if err != nil {
		t.Fatalf("go list -deps ./%s: %v", root, err)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		imports[fields[0]] = fields[1:]
	}
	return imports
}

// chain returns a shortest way of imports from one package to another.
func chain(imports map[string][]string, from, to string) []string {
	ways := [][]string{{from}}
	seen := map[string]bool{from: true}
	for len(ways) > 0 {
		way := ways[0]
		ways = ways[1:]
		last := way[len(way)-1]
		if last == to {
			return way
		}
		for _, next := range imports[last] {
			if !seen[next] {
				seen[next] = true
				ways = append(ways, append(slices.Clone(way), next))
			}
		}
	}
	return []string{from, "…", to}
}
