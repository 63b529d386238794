// Package ownfile checks the owners and modes of the files that a process relies on: keys,
// certificates, settings, data directories.
//
// A file passes when only root, the user of this process and the members of the groups in [Trust]
// can have written it, replaced it, or replaced a directory or symbolic link on the way to it. A
// file with a secret passes when, besides, no other user can read it. The error of a file that does
// not pass names the command that corrects it.
//
// The package checks owners and permission bits. Access control lists show in the bits of the
// group, which is enough to refuse them. It gives no protection from root and from other processes
// of the same user.
package ownfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxLinks bounds the symbolic links on the way to a file.
const maxLinks = 40

// Trust says who may write besides root and the user of this process. The zero value trusts nobody
// else.
type Trust struct {
	// Groups are IDs of groups whose members may read and write, such as the fsGroup of a Kubernetes
	// pod.
	Groups []int
}

// CheckSecret verifies a regular file that holds a secret. A file of root may be readable by its
// group (mode 0640).
func CheckSecret(path string) error { return Trust{}.CheckSecret(path) }

// CheckFile verifies a regular file that everybody may read.
func CheckFile(path string) error { return Trust{}.CheckFile(path) }

// CheckSecret is [CheckSecret] with further groups.
func (t Trust) CheckSecret(path string) error { return t.check(path, purpose{secret: true}) }

// CheckFile is [CheckFile] with further groups.
func (t Trust) CheckFile(path string) error { return t.check(path, purpose{}) }

// CheckDir verifies a directory in which this process keeps files.
func (t Trust) CheckDir(path string) error { return t.check(path, purpose{dir: true}) }

// CheckTree verifies a directory as CheckDir does, and everything below it. A symbolic link below
// it is verified itself, and not what it points to. The errors of at most ten files are joined.
func (t Trust) CheckTree(dir string) error {
	if err := t.CheckDir(dir); err != nil {
		return err
	}
	self, errs := os.Geteuid(), []error(nil)
	walkErr := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path == dir && err == nil {
			return nil
		}
		if errors.Is(err, fs.ErrPermission) && d != nil && d.IsDir() {
			return fs.SkipDir // such as lost+found: this process cannot use what it cannot read
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.judge(newEntry(path, info), self, false); err != nil {
			errs = append(errs, err)
		}
		if len(errs) == 10 {
			return fs.SkipAll
		}
		return nil
	})
	return errors.Join(append(errs, walkErr)...)
}

// purpose says what a path is expected to be.
type purpose struct{ dir, secret bool }

// check follows the path from the root on, one symbolic link after the other, and judges every
// step.
func (t Trust) check(path string, want purpose) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	self, links := os.Geteuid(), 0
	at := filepath.VolumeName(path) + string(filepath.Separator)
	rest := parts(path)
	for {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		e := newEntry(at, info)
		switch {
		case e.link:
			if err := t.judge(e, self, false); err != nil {
				return err
			}
			if links++; links > maxLinks {
				return fmt.Errorf("%s: too many symbolic links", path)
			}
			if at, rest, err = followLink(at, rest); err != nil {
				return err
			}
		case len(rest) == 0:
			return t.last(e, self, want)
		case !e.dir:
			return fmt.Errorf("%s is not a directory", at)
		default:
			if err := t.judge(e, self, false); err != nil {
				return err
			}
		}
		if len(rest) > 0 {
			at, rest = filepath.Join(at, rest[0]), rest[1:] // at has no link, so ".." is its parent
		}
	}
}

// followLink returns where a link leads to: a directory without links, and the parts of the path
// below it.
func followLink(link string, rest []string) (dir string, below []string, err error) {
	to, err := os.Readlink(link)
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Dir(link)
	if filepath.IsAbs(to) {
		dir = filepath.VolumeName(to) + string(filepath.Separator)
	}
	return dir, append(parts(to), rest...), nil
}

// last judges the file that the path leads to.
func (t Trust) last(e entry, self int, want purpose) error {
	switch {
	case want.dir && !e.dir:
		return fmt.Errorf("%s is not a directory", e.path)
	case !want.dir && !e.regular:
		return fmt.Errorf("%s is not a regular file", e.path)
	case want.dir:
		e.sticky = false // the bit keeps others from replacing files, and not from adding some
	}
	return t.judge(e, self, want.secret)
}

func parts(path string) []string {
	path = path[len(filepath.VolumeName(path)):]
	steps := strings.Split(path, string(filepath.Separator))
	return slices.DeleteFunc(steps, func(s string) bool { return s == "" || s == "." })
}

// entry is what the rules look at.
type entry struct {
	path               string
	dir, link, regular bool
	sticky             bool
	mode               fs.FileMode // permission bits
	owner, group       int         // -1 where the system has none
	readOnly           bool        // on a file system that is mounted read-only, such as a Kubernetes ConfigMap
}

func newEntry(path string, info fs.FileInfo) entry {
	e := entry{
		path: path, dir: info.IsDir(), link: info.Mode()&fs.ModeSymlink != 0, regular: info.Mode().IsRegular(),
		sticky: info.IsDir() && info.Mode()&fs.ModeSticky != 0, mode: info.Mode().Perm(),
	}
	e.owner, e.group = owners(info)
	e.readOnly = !e.link && e.mode&0o022 != 0 && onReadOnly(path)
	return e
}

// judge decides on one file, directory or link. A directory with the sticky bit may be writable:
// what is in it belongs to its owner, who is judged too.
func (t Trust) judge(e entry, self int, secret bool) error {
	if e.owner < 0 {
		return nil
	}
	if e.owner != 0 && e.owner != self {
		return fmt.Errorf("%s belongs to the user with ID %d, who could have made or changed it: "+
			"check its content, then run chown %d %s", e.path, e.owner, self, quoted(e.path))
	}
	if e.link {
		return nil // its mode means nothing
	}
	shared := slices.Contains(t.Groups, e.group)
	if writable := e.mode & 0o022; !e.sticky && !e.readOnly && (writable&0o002 != 0 || writable != 0 && !shared) {
		return fmt.Errorf("%s has mode %04o, so others can write to it: check its content, then run chmod %s %s",
			e.path, e.mode, e.without("w", shared), quoted(e.path))
	}
	if !secret {
		return nil
	}
	byGroup := shared || e.owner == 0 && self != 0 && e.mode&0o030 == 0
	if e.mode&0o007 != 0 || e.mode&0o070 != 0 && !byGroup {
		mode := "600"
		if e.owner == 0 && self != 0 {
			mode = "640"
		} else if shared {
			mode = "660"
		}
		return fmt.Errorf("%s holds a secret and has mode %04o, so others can read it: run chmod %s %s",
			e.path, e.mode, mode, quoted(e.path))
	}
	return nil
}

func (e entry) without(right string, shared bool) string {
	if shared {
		return "o-" + right
	}
	return "go-" + right
}

// quoted makes a path safe to paste into a shell.
func quoted(path string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:@%", r)
	}
	if strings.IndexFunc(path, func(r rune) bool { return !safe(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
