package ownfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestJudge is the table of the rules, from the side of each user who must not be able to write or
// read.
func TestJudge(t *testing.T) {
	t.Parallel()
	const self, stranger, team = 1000, 65534, 2000
	file := func(owner, group int, mode fs.FileMode) entry {
		return entry{path: "/d/f", regular: true, owner: owner, group: group, mode: mode}
	}
	dir := func(owner, group int, mode fs.FileMode) entry {
		return entry{path: "/d/f", dir: true, sticky: mode&fs.ModeSticky != 0, owner: owner, group: group, mode: mode.Perm()}
	}
	shared := Trust{Groups: []int{team}}
	for name, tt := range map[string]struct {
		trust  Trust
		e      entry
		secret bool
		want   string // part of the error; empty means that the file passes
	}{
		"own secret":                       {Trust{}, file(self, self, 0o600), true, ""},
		"own secret, read only":            {Trust{}, file(self, self, 0o400), true, ""},
		"own secret, group reads":          {Trust{}, file(self, self, 0o640), true, "chmod 600 /d/f"},
		"own secret, all read":             {Trust{}, file(self, self, 0o604), true, "chmod 600 /d/f"},
		"root's secret":                    {Trust{}, file(0, self, 0o600), true, ""},
		"root's secret, group reads":       {Trust{}, file(0, team, 0o640), true, ""},
		"root's secret, group writes":      {Trust{}, file(0, team, 0o660), true, "chmod go-w /d/f"},
		"root's secret, all read":          {Trust{}, file(0, 0, 0o644), true, "chmod 640 /d/f"},
		"stranger's secret":                {Trust{}, file(stranger, self, 0o600), true, "chown 1000 /d/f"},
		"own file, all read":               {Trust{}, file(self, self, 0o644), false, ""},
		"own file, group writes":           {Trust{}, file(self, self, 0o664), false, "chmod go-w /d/f"},
		"own file, all write":              {Trust{}, file(self, self, 0o646), false, "chmod go-w /d/f"},
		"stranger's file":                  {Trust{}, file(stranger, stranger, 0o400), false, "chown 1000 /d/f"},
		"trusted group writes":             {shared, file(self, team, 0o660), true, ""},
		"trusted group, root's":            {shared, file(0, team, 0o660), true, ""},
		"trusted group, all write":         {shared, file(self, team, 0o662), true, "chmod o-w /d/f"},
		"trusted group, all read":          {shared, file(self, team, 0o664), true, "chmod 660 /d/f"},
		"another group writes":             {shared, file(self, self, 0o660), true, "chmod go-w /d/f"},
		"stranger's file, trusted group":   {shared, file(stranger, team, 0o660), true, "chown 1000 /d/f"},
		"own directory":                    {Trust{}, dir(self, self, 0o755), false, ""},
		"own directory, all write":         {Trust{}, dir(self, self, 0o777), false, "chmod go-w /d/f"},
		"sticky directory":                 {Trust{}, dir(0, 0, 0o777|fs.ModeSticky), false, ""},
		"stranger's sticky directory":      {Trust{}, dir(stranger, 0, 0o777|fs.ModeSticky), false, "chown 1000 /d/f"},
		"trusted group's setgid directory": {shared, dir(0, team, 0o770), false, ""},
		"stranger's link": {Trust{}, entry{
			path:  "/d/f",
			link:  true,
			owner: stranger,
			mode:  0o777,
		}, false, "chown 1000 /d/f"},
		"own link":                       {Trust{}, entry{path: "/d/f", link: true, owner: self, mode: 0o777}, false, ""},
		"all write, but read-only mount": {Trust{}, entry{path: "/d/f", dir: true, mode: 0o777, readOnly: true}, false, ""},
		"no owners on this system":       {Trust{}, file(-1, -1, 0o666), true, ""},
	} {
		err := tt.trust.judge(tt.e, self, tt.secret)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestPath verifies that each step on the way to a file counts, through symbolic links too.
func TestPath(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	in := func(parts ...string) string { return filepath.Join(append([]string{base}, parts...)...) }
	must(t, os.MkdirAll(in("safe", "sub"), 0o700), os.MkdirAll(in("open"), 0o700),
		os.WriteFile(in("safe", "key"), []byte("x"), 0o600), os.WriteFile(in("open", "key"), []byte("x"), 0o600),
		os.Symlink(in("safe"), in("open", "to-safe")), os.Symlink("../open/key", in("safe", "to-open")),
		os.Symlink("sub/../key", in("safe", "dots")), os.Symlink("round", in("safe", "round")), os.Chmod(in("open"), 0o777))
	for path, want := range map[string]string{
		in("safe", "key"):            "",
		in("safe", "dots"):           "",
		in("safe", "none"):           "no such file",
		in("safe", "sub"):            "not a regular file",
		in("safe", "key", "x"):       "not a directory",
		in("safe", "round"):          "too many",
		in("open", "key"):            "chmod go-w " + in("open"),
		in("safe", "to-open"):        "chmod go-w " + in("open"),
		in("open", "to-safe", "key"): "chmod go-w " + in("open"),
	} {
		err := CheckSecret(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", path, err, want)
		}
	}
	if err := CheckSecret(in("safe", "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v, want fs.ErrNotExist", err)
	}
	if err := (Trust{}).CheckDir(in("open")); err == nil {
		t.Error("a directory that all may write to passes")
	}
	must(t, os.Chmod(in("open"), 0o777|fs.ModeSticky))
	if err := CheckSecret(in("open", "key")); err != nil {
		t.Errorf("an own file in a sticky directory: %v", err)
	}
	if err := (Trust{}).CheckDir(in("open")); err == nil {
		t.Error("a sticky directory in which others may plant files passes as a data directory")
	}
}

// TestTree verifies that one file that others may write is found, however deep it lies.
func TestTree(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	deep := filepath.Join(base, "store", "member", "snap")
	must(t, os.MkdirAll(deep, 0o700), os.WriteFile(filepath.Join(deep, "db"), nil, 0o600))
	if err := (Trust{}).CheckTree(base); err != nil {
		t.Fatal(err)
	}
	must(t, os.Chmod(filepath.Join(deep, "db"), 0o606))
	if err := (Trust{}).CheckTree(base); err == nil ||
		!strings.Contains(err.Error(), "chmod go-w "+filepath.Join(deep, "db")) {
		t.Errorf("a file that all may write: %v", err)
	}
}

// TestStrangersFile plants a file as another user.
func TestStrangersFile(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
	path := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(path, []byte("x"), 0o600), os.Chown(path, 65534, 65534))
	if err := CheckSecret(path); err == nil || !strings.Contains(err.Error(), "chown 0 "+path) {
		t.Errorf("a file of user 65534: %v", err)
	}
}

func TestQuoted(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"/var/lib/key": "/var/lib/key", "/a b": "'/a b'", "/it's": `'/it'\''s'`,
		"/$(x)": "'/$(x)'"} {
		if got := quoted(path); got != want {
			t.Errorf("quoted(%q) = %q, want %q", path, got, want)
		}
	}
}
