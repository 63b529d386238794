package api_test

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/sign"
)

// ramParameters is the parameters of each operation of the user service, as the reference lists
// them.
//
//go:embed testdata/parameters-ram.json
var ramParameters string

func operationsOf(version string) []*operation.Op {
	var list []*operation.Op
	for _, o := range protocol.Operations() {
		if o.Version == version {
			list = append(list, o)
		}
	}
	return list
}

// params reads "Name=value Name=value"; a value goes on up to the next space.
func params(s string) sign.Params {
	var p sign.Params
	for _, pair := range strings.Fields(s) {
		name, value, _ := strings.Cut(pair, "=")
		p = append(p, sign.Param{Name: name, Value: value})
	}
	return p
}

// searchDir fails the test when a file under dir holds what must not be there.
func searchDir(t *testing.T, dir string, secret []byte) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if files++; bytes.Contains(data, secret) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files searched, %v", files, err)
	}
}

// trail reads the audit trail: operation, phase, resource and outcome of each record.
func trail(t *testing.T, dataDir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dataDir, "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("audit trail: %v, %v", files, err)
	}
	var list []string
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var r audit.Record
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("%s %s %s  %s", r.Operation, r.Phase, r.Resource, r.Outcome))
		}
	}
	return list
}
