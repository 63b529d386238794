package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSocketModeIsSetOnTheSocketAlone verifies that a user who can rename files in the socket's
// directory cannot have the agent, at a reload or when it stops, change or remove another file
// that stands at the socket's path.
func TestSocketModeIsSetOnTheSocketAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	app, victim := filepath.Join(s.dir, "app"), filepath.Join(s.dir, "victim")
	if err := os.Mkdir(app, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(app, appUser, appUser); err != nil {
			t.Fatal(err)
		}
	}
	write(t, victim, "of root")
	if err := os.Chmod(victim, 0o600); err != nil {
		t.Fatal(err)
	}
	const text = "secrets: [db]\nhttp: {socket: DIR/app/sock, socket_mode: \"0666\", token_file: DIR/token}\n"
	config := s.config(t, text)
	r := s.run(t, config)
	sock := filepath.Join(app, "sock")
	mode := func(path string) os.FileMode {
		t.Helper()
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if mode(sock) != 0o666 {
		t.Fatalf("the socket has mode %04o", mode(sock))
	}
	if entries, err := os.ReadDir(app); err != nil || len(entries) != 1 {
		t.Errorf("%d files in the socket's directory, %v", len(entries), err)
	}
	other, err := net.Listen("unix", filepath.Join(s.dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	if err := errors.Join(os.Rename(sock, sock+"-away"), os.Chmod(filepath.Join(s.dir, "other"), 0o600)); err != nil {
		t.Fatal(err)
	}
	const logged = "mode of the socket not set"
	for i, put := range []struct {
		what string
		from string
		do   func(from, to string) error
	}{
		{"a symbolic link", victim, os.Symlink},
		{"a hard link", victim, os.Link},
		{"another socket", filepath.Join(s.dir, "other"), os.Link},
	} {
		_ = os.Remove(sock)
		if err := put.do(put.from, sock); err != nil {
			t.Fatal(err)
		}
		r.reload <- nil
		await(t, func() bool { return strings.Count(r.log.String(), logged) > i || mode(put.from) != 0o600 })
		if mode(put.from) != 0o600 {
			t.Errorf("by %s the mode became %04o", put.what, mode(put.from))
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(sock); err != nil {
		t.Errorf("the agent removed a socket that is not its own: %v", err)
	}
}

// TestSocketAndTokenFollowNoLink verifies that neither the socket nor the token file is made by way
// of a directory that another user has replaced by a symbolic link.
func TestSocketAndTokenFollowNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app, victim := filepath.Join(dir, "app"), filepath.Join(dir, "victim")
	if err := errors.Join(os.Mkdir(app, 0o777), os.Chmod(app, 0o777), os.Mkdir(victim, 0o700),
		os.Symlink(victim, filepath.Join(app, "run"))); err != nil {
		t.Fatal(err)
	}
	if l, _, err := listenSocket(filepath.Join(app, "run", "sock"), 0o600); err == nil {
		_ = l.Close()
		t.Error("a socket was made")
	}
	if _, err := madeOnce(filepath.Join(app, "run", "token"), tokenBytes); err == nil {
		t.Error("a token was made")
	}
	if entries, err := os.ReadDir(victim); err != nil || len(entries) != 0 {
		t.Errorf("%d files where the link points to, %v", len(entries), err)
	}
}

// TestSocketIsTakenOver verifies that a socket without a listener is replaced, and that
// another process's socket and other files stay. It does not run in parallel: a process that
// another test starts meanwhile has the socket open for a moment.
func TestSocketIsTakenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sock")
	first, file, err := listenSocket(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := listenSocket(path, 0o600); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("beside one that listens: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, again, err := listenSocket(path, 0o600)
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	defer second.Close()
	file.remove()
	if _, err := os.Lstat(path); err != nil && file.ino != again.ino {
		t.Errorf("the first one's end removes the second: %v", err)
	}
	again.remove()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := listenSocket(path, 0o600); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("in place of a file: %v", err)
	}
}
