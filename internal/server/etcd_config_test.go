package server

import (
	"strings"
	"testing"
)

// TestEtcdEndpointsHoldNoPassword verifies that a user or password inside an endpoint is refused
// without being quoted: libraries would quote it in their errors.
func TestEtcdEndpointsHoldNoPassword(t *testing.T) {
	t.Parallel()
	for _, endpoint := range []string{"https://u:marker@h:2379", "u:marker@h:2379", "http://marker@127.0.0.1:2379"} {
		for _, password := range []string{"", "p"} {
			err := Etcd{Endpoints: []string{"h:1", endpoint}, Username: "u", Password: password}.check()
			if err == nil || strings.Contains(err.Error(), "marker") || !strings.Contains(err.Error(), "number 2") {
				t.Errorf("%s: the error is %v, want one that names the second endpoint and quotes none", endpoint, err)
			}
		}
	}
}
