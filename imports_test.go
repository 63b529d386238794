package keyturn_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/keyturn/keyturn/"

// lines are the layers of docs/ARCHITECTURE.md, the lowest first. A package imports only layers
// below its own; only the wiring, the last line, also imports packages of its own layer. A pattern
// stands for the packages that no line names.
var lines = [][]string{
	{"sensitive", "internal/fault", "internal/deadline", "internal/ownfile", "internal/egress", "internal/settings"},
	{"sign", "internal/credential", "internal/target", "internal/target/shacrypt", "internal/sshkey"},
	{"internal/wire", "internal/target/plugin", "internal/target/rest", "internal/target/unixcrypt"},
	{"internal/operation"},
	{"kms"},
	{"ram"},
	{"internal/rotation", "internal/cmk", "internal/policy", "internal/users"},
	{"internal/secret", "internal/protocol", "internal/rotation/explore"},
	{"internal/target/*"},
	{
		"internal/store", "internal/envelope", "internal/root", "internal/audit", "internal/auth", "internal/limit",
		"internal/conns",
	},
	{"internal/api", "consumer"},
	{
		"internal/api/rpc", "internal/rotator", "consumer/consumermetrics", "consumer/keyringkey",
		"consumer/credential", "consumer/consumertest",
	},
	{"consumer/internal/adapter"},
	{
		"internal/agent", "consumer/sqlauth", "consumer/pgxauth", "consumer/redisauth", "consumer/sshauth",
		"consumer/httpauth",
	},
	{
		"internal/server", "internal/sandbox", "internal/demo", "internal/command", "internal/cli", "keyturntest",
		"cmd/keyturn", "cmd/keyturn-agent", "cmd/keyturn-demo",
	},
}

func line(name string) int {
	for i, packages := range lines {
		if slices.Contains(packages, name) {
			return i
		}
	}
	for i, packages := range lines {
		for _, pattern := range packages {
			if ok, err := path.Match(pattern, name); ok && err == nil {
				return i
			}
		}
	}
	return -1
}

func TestImports(t *testing.T) {
	t.Parallel()
	wiring := len(lines) - 1
	checked := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".") {
			if d != nil && d.IsDir() && err == nil {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "test/") ||
			strings.HasPrefix(path, "examples/") {
			return nil
		}
		from := filepath.ToSlash(filepath.Dir(path))
		if line(from) < 0 {
			t.Errorf("package %s is on no line: add it to the picture", from)
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			to, ours := strings.CutPrefix(name, module)
			if !ours {
				continue
			}
			checked++
			if line(to) >= line(from) && line(from) != wiring {
				t.Errorf("%s imports %s, which is not below it", path, to)
			}
			if spec.Name != nil && spec.Name.Name == "_" {
				t.Errorf("%s imports %s for its side effects", path, to)
			}
		}
		return nil
	})
	if err != nil || checked == 0 {
		t.Fatalf("%d imports checked, %v", checked, err)
	}
}

// TestLeavesAreLight verifies that leaves, core and package consumer have no third-party
// dependency, so that clients link no driver.
func TestLeavesAreLight(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{
		"sensitive", "sign", "kms", "ram", "internal/fault", "internal/egress", "internal/wire", "internal/operation",
		"internal/protocol", "internal/secret", "internal/rotation", "internal/rotation/explore", "internal/target",
		"internal/credential", "internal/cmk", "internal/policy", "internal/users", "consumer",
	} {
		for path, imports := range sources(t, dir) {
			for _, name := range imports {
				if first, _, _ := strings.Cut(name, "/"); strings.Contains(first, ".") && !strings.HasPrefix(name, module) {
					t.Errorf("%s imports %s", path, name)
				}
			}
		}
	}
}

// TestAdaptersHaveOneDriver verifies that each adapter of package consumer imports its own driver
// and no other third-party package.
func TestAdaptersHaveOneDriver(t *testing.T) {
	t.Parallel()
	for dir, driver := range map[string]string{
		"consumer/credential": "", "consumer/internal/adapter": "", "consumer/sqlauth": "", "consumer/httpauth": "",
		"consumer/pgxauth": "github.com/jackc/pgx/v5", "consumer/redisauth": "github.com/redis/go-redis/v9",
		"consumer/sshauth": "golang.org/x/crypto/ssh",
	} {
		for path, imports := range sources(t, dir) {
			for _, name := range imports {
				first, _, _ := strings.Cut(name, "/")
				if strings.Contains(first, ".") &&
					!strings.HasPrefix(name, module) &&
					(driver == "" || !strings.HasPrefix(name, driver)) {
					t.Errorf("%s imports %s", path, name)
				}
			}
		}
	}
}

// sources returns the files of a package, without its tests, and what they import.
func sources(t *testing.T, dir string) map[string][]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	imports := map[string][]string{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			imports[path] = append(imports[path], name)
		}
	}
	return imports
}
