package server

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/internal/audit"
)

var (
	describedMetric  = regexp.MustCompile(`fqName: "(keyturn_\w+)"`)
	documentedMetric = regexp.MustCompile("`(keyturn_[a-z_]+)[`{ ]")
)

// TestMetricsDocument verifies that docs/operations.md names every metric of the server, and no
// metric that the server does not have.
func TestMetricsDocument(t *testing.T) {
	t.Parallel()
	trail, err := audit.Open(audit.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = trail.Close() }()
	s := &Server{sinks: []*audit.Forwarder{trail.Forward(&audit.Syslog{}, 0)}}
	descriptions := make(chan *prometheus.Desc)
	go func() {
		newMetrics(s).registry.Describe(descriptions)
		close(descriptions)
	}()
	var have []string
	for d := range descriptions {
		if m := describedMetric.FindStringSubmatch(d.String()); m != nil {
			have = append(have, m[1])
		}
	}
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, m := range documentedMetric.FindAllStringSubmatch(string(text), -1) {
		named = append(named, m[1])
	}
	for _, name := range have {
		if !slices.Contains(named, name) {
			t.Errorf("docs/operations.md does not name the metric %s: add it to \"What to watch\"", name)
		}
	}
	for _, name := range named {
		if !slices.Contains(have, name) && !strings.HasPrefix(name, "keyturn_consumer") {
			t.Errorf("docs/operations.md names the metric %s, which the server does not have", name)
		}
	}
	if len(have) < 15 {
		t.Errorf("%d metrics were found", len(have))
	}
}
