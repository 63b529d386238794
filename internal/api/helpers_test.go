package api_test

import (
	"bytes"
	_ "embed"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/api"
	"github.com/keyturn/keyturn/sign"
)

// ramParameters is the parameters of each operation of the user service, as the reference lists them.
//
//go:embed testdata/parameters-ram.json
var ramParameters string

func operationsOf(version string) []api.Op {
	var list []api.Op
	for _, o := range api.Operations() {
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
