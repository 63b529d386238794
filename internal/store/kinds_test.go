package store

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

// declaredKinds returns the variables of kinds.go that declare a type of record, and the entries of
// the table kinds.
func declaredKinds(t *testing.T) (declared, listed []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "kinds.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		vars, ok := d.(*ast.GenDecl)
		if !ok || vars.Tok != token.VAR {
			continue
		}
		for _, spec := range vars.Specs {
			v := spec.(*ast.ValueSpec)
			switch name := v.Names[0].Name; {
			case name == "kinds":
				for _, e := range v.Values[0].(*ast.CompositeLit).Elts {
					listed = append(listed, e.(*ast.Ident).Name)
				}
			case strings.HasSuffix(name, "Kind"):
				declared = append(declared, name)
			}
		}
	}
	return declared, listed
}

// TestKindsAreListed verifies that each type of record is in the table: root-key rotation and the
// tests of tampering find it there.
func TestKindsAreListed(t *testing.T) {
	t.Parallel()
	declared, listed := declaredKinds(t)
	if len(declared) == 0 || len(listed) != len(kinds) {
		t.Fatalf("%d declared, %d listed, %d in the table", len(declared), len(listed), len(kinds))
	}
	for _, name := range declared {
		if !slices.Contains(listed, name) {
			t.Errorf("%s is declared and is not in the table kinds: add it", name)
		}
	}
	if len(kindByName) != len(kinds) {
		t.Errorf("%d types share %d first parts of keys: each needs its own", len(kinds), len(kindByName))
	}
}

// foreign returns the keys of other records of the type than the zero one, and a key of no record
// of it.
func (k kind[T]) foreign(t *testing.T) []string {
	t.Helper()
	var zero T
	own, _ := k.zero()
	if k.path == nil {
		switch any(zero).(type) {
		case string, bool, time.Time:
		default:
			t.Errorf("%s: a record of the type %T is not checked: declare how it says where it belongs", k.prefix, zero)
		}
		return []string{"x" + own}
	}
	if !k.isAt(own, zero) {
		t.Errorf("%s: a record is not at its own key %q", k.prefix, own)
	}
	return []string{own + "x", "x" + own, k.prefix + "1/other:x"}
}

func (k kind[T]) refusesForeign(t *testing.T) {
	t.Helper()
	for _, key := range k.foreign(t) {
		var zero T
		data, err := fuzzed.seal(0, key, []byte("null")) // decodes to the zero value
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.decode(fuzzed, key, data); err == nil {
			t.Errorf("a record of another key is accepted at %q", key)
		}
		if _, err := k.encode(fuzzed, key, zero); err == nil {
			t.Errorf("a record of another key is written at %q", key)
		}
	}
}

// TestForeignRecords verifies for each type that a record is read and written only at its own key,
// even if its tag is right.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		if _, ok := k.(sealedValues); ok {
			continue // package envelope binds a value to its key
		}
		k.(interface{ refusesForeign(*testing.T) }).refusesForeign(t)
	}
}

// hasSealedBytes reports whether values of a type contain byte slices that are not JSON. Records
// have such slices only for what a key has sealed or wrapped; a digest is an array.
func hasSealedBytes(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return t != reflect.TypeFor[json.RawMessage]()
		}
		return hasSealedBytes(t.Elem())
	case reflect.Array, reflect.Pointer:
		return hasSealedBytes(t.Elem())
	case reflect.Map:
		return hasSealedBytes(t.Key()) || hasSealedBytes(t.Elem())
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return false
		}
		for i := range t.NumField() {
			if hasSealedBytes(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}

func (k kind[T]) mustBeRewrapped() (must, is bool) {
	return hasSealedBytes(reflect.TypeFor[T]()), k.rule != nil
}

// TestSealedRecordsAreRewrapped verifies that each type of record with sealed bytes declares how a
// rotation of the keys changes it: a record that is left out can no longer be opened once the
// former root key is destroyed.
func TestSealedRecordsAreRewrapped(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		switch k := k.(type) {
		case sealedValues: // has a method of its own
		case kind[Meta]: // the transactions that rotate the keys write it
		case interface{ mustBeRewrapped() (must, is bool) }:
			if must, is := k.mustBeRewrapped(); must && !is {
				t.Errorf("a record of the type %T has sealed bytes: declare it with rewrappedBy", k)
			} else if is && !must {
				t.Errorf("a record of the type %T is rewrapped and has no sealed bytes", k)
			}
		}
	}
}

// TestTagBindsBareRecords verifies that the tag of a record without a name binds it to its key.
func TestTagBindsBareRecords(t *testing.T) {
	t.Parallel()
	for _, format := range []byte{0, generationFormat} {
		data, err := fuzzed.seal(format, "keyuse/k", []byte(`"2026-01-02T03:04:05Z"`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keyUseKind.decode(fuzzed, "keyuse/k", data); err != nil {
			t.Errorf("format %d: at its own key: %v", format, err)
		}
		if _, err := keyUseKind.decode(fuzzed, "keyuse/other", data); err == nil {
			t.Errorf("format %d: a bare record is accepted at another key: its tag does not bind it", format)
		}
	}
}

// TestRecordLimit verifies that a record which is too large is refused before it is sent.
func TestRecordLimit(t *testing.T) {
	t.Parallel()
	tx := &Tx{db: fuzzed}
	err := accountKind.save(tx, Account{ID: "1", DefaultKeyID: strings.Repeat("x", maxRecord)})
	if fault.KindOf(err) != fault.LimitExceeded || len(tx.writes) > 0 {
		t.Errorf("a record above the limit: %v, %d writes", err, len(tx.writes))
	}
}

// TestArchitectureTable verifies that docs/ARCHITECTURE.md has a row for each type of record, and
// no other.
func TestArchitectureTable(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| key | record |")
	table, _, _ = strings.Cut(table, "\n\n")
	var rows []string
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			rows = append(rows, firstPart(m[1]))
		}
	}
	for _, name := range Kinds() {
		if !slices.Contains(rows, name) {
			t.Errorf("the table of docs/ARCHITECTURE.md has no row for the records %s", name)
		}
	}
	for _, name := range rows {
		if !slices.Contains(Kinds(), name) {
			t.Errorf("the table of docs/ARCHITECTURE.md has a row for %s, and the store no such record", name)
		}
	}
}
