package protocol

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/fault"
)

// TestOwnCodes verifies that every code of the user service has a status that fits its family, and
// a form of its own.
func TestOwnCodes(t *testing.T) {
	t.Parallel()
	found := 0
	check := func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 || !strings.HasPrefix(v.Names[0].Name, "Code") {
			return true
		}
		code, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		found++
		want := http.StatusBadRequest
		switch family, _, _ := strings.Cut(code, "."); family {
		case "EntityNotExist":
			want = http.StatusNotFound
		case "EntityAlreadyExists", "DeleteConflict", "LimitExceeded":
			want = http.StatusConflict
		case "NoPermission":
			want = http.StatusForbidden
		}
		if c, ok := ownCodes[code]; !ok || c.Code != code || c.Status != want {
			t.Errorf("%s is %+v, %v; want status %d", code, c, ok, want)
		}
		return true
	}
	for _, path := range []string{"../../ram/codes.go", "../users/users.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, check)
	}
	if found != len(ownCodes) {
		t.Errorf("%d codes are named, %d have a status", found, len(ownCodes))
	}
	err := &fault.Error{Kind: fault.Invalid, Code: "InvalidParameter.*.Length", Param: "UserName", Msg: "Shorter."}
	want := Code{
		Status:  http.StatusBadRequest,
		Code:    "InvalidParameter.UserName.Length",
		Message: `The parameter - "UserName" beyond the length limit. Shorter.`,
	}
	if got := CodeFor(err); got != want {
		t.Errorf("CodeFor = %+v; want %+v", got, want)
	}
}
