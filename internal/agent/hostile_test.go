package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// appUser is a user of an application, who is not the agent's.
const appUser = 64123

// sleeper starts a process of a user, and returns how it ended when it did.
func sleeper(t *testing.T, uid int) (pid int, ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/bin/sleep", "600")
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	done, all := make(chan error, 1), make(chan struct{})
	go func() { done <- cmd.Wait(); close(all) }()
	t.Cleanup(func() { cancel(); <-all })
	return cmd.Process.Pid, done
}

// TestBystandersAreNotSignalled verifies that the user of an application, who writes its pid_file,
// cannot have the agent signal a process that is not theirs.
func TestBystandersAreNotSignalled(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only an agent of root can signal the processes of others")
	}
	dir := t.TempDir()
	app := filepath.Join(dir, "app")
	if err := errors.Join(os.Mkdir(app, 0o755), os.Chown(app, appUser, appUser)); err != nil {
		t.Fatal(err)
	}
	bystander, bystanderEnded := sleeper(t, 0)
	own, ownEnded := sleeper(t, appUser)
	pidFile := filepath.Join(app, "pid")
	notify := func(executable string) error {
		var m mistakes
		n := (&Hook{Signal: "TERM", PIDFile: pidFile, Executable: executable, Attempts: 1}).check("at", &m)
		if m.err() != nil {
			t.Fatal(m.err())
		}
		return n.once(t.Context(), "/file")
	}
	byApp := func(pid int) {
		t.Helper()
		_ = os.Remove(pidFile)
		if err := errors.Join(os.WriteFile(pidFile, []byte(fmt.Sprint(pid)), 0o644),
			os.Chown(pidFile, appUser, appUser)); err != nil {
			t.Fatal(err)
		}
	}
	byApp(bystander)
	if err := notify(""); err == nil || !strings.Contains(err.Error(), "it is not signalled") {
		t.Errorf("a process of root: %v", err)
	}
	// A file of root that another user has put there: by a link to a file that contains the number, or
	// moved from elsewhere.
	rootsFile := filepath.Join(dir, "roots.pid")
	if err := os.WriteFile(rootsFile, []byte(fmt.Sprint(bystander)), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"symbolic link": func() error { return os.Symlink(rootsFile, pidFile) },
		"hard link":     func() error { return os.Link(rootsFile, pidFile) },
		"moved":         func() error { return os.Rename(rootsFile, pidFile) },
	} {
		_ = os.Remove(pidFile)
		if err := errors.Join(os.WriteFile(rootsFile, []byte(fmt.Sprint(bystander)), 0o644), put()); err != nil {
			t.Fatal(err)
		}
		if err := notify(""); err == nil {
			t.Errorf("a file of root by a %s: the signal was sent", name)
		}
	}
	byApp(own)
	if err := notify("/bin/true"); err == nil || !strings.Contains(err.Error(), "does not run /bin/true") {
		t.Errorf("another executable: %v", err)
	}
	select {
	case err := <-bystanderEnded:
		t.Fatalf("the bystander has ended: %v", err)
	case err := <-ownEnded:
		t.Fatalf("the application has ended: %v", err)
	default:
	}
	sleep, err := filepath.EvalSymlinks("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := notify(sleep); err != nil {
		t.Errorf("the application itself: %v", err)
	}
	select {
	case <-ownEnded:
	case <-time.After(30 * time.Second):
		t.Error("the application was not signalled")
	}
	if err := syscall.Kill(bystander, 0); err != nil {
		t.Errorf("the bystander: %v", err)
	}
}

// TestSwappedDirectoryIsNotFollowed verifies that a directory on the way to a file, replaced by a
// symbolic link by a user who may write there, leads the agent nowhere: what the link points to
// stays as it is.
func TestSwappedDirectoryIsNotFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	app, victim := filepath.Join(dir, "app"), filepath.Join(dir, "victim")
	conf := filepath.Join(app, "conf")
	if err := errors.Join(os.MkdirAll(conf, 0o755), os.Mkdir(victim, 0o755), os.Chmod(app, 0o777)); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(app, 0o755), os.Chown(app, appUser, appUser),
			os.Chown(conf, appUser, appUser)); err != nil {
			t.Fatal(err)
		}
	}
	k := newFileWriter(&rendered{
		File: File{Path: filepath.Join(conf, "app.env")},
		mode: 0o600,
		uid:  -1,
		gid:  -1,
	}, nil, nil)
	if err := k.write([]byte("value")); err != nil {
		t.Fatalf("into a directory of the application: %v", err)
	}
	if err := errors.Join(os.RemoveAll(conf), os.Symlink(victim, conf)); err != nil {
		t.Fatal(err)
	}
	if err := k.write([]byte("value")); err == nil || !strings.Contains(err.Error(), "another user may have made") {
		t.Errorf("by a link of another user: %v", err)
	}
	if entries, err := os.ReadDir(victim); err != nil || len(entries) != 0 {
		t.Errorf("the directory that the link points to has %d files, %v", len(entries), err)
	}
	// A link that only we could have made is followed, such as /var/run.
	link := filepath.Join(dir, "link")
	if err := os.Symlink("victim", link); err != nil {
		t.Fatal(err)
	}
	k = newFileWriter(&rendered{File: File{Path: filepath.Join(link, "app.env")}, mode: 0o600, uid: -1, gid: -1}, nil, nil)
	if err := k.write([]byte("value")); err != nil {
		t.Errorf("by a link of our own: %v", err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if _, err := openDirectory(loop); err == nil {
		t.Error("a link to itself is followed")
	}
}

// TestKeyFileOfOthersIsRefused verifies that an access key is not read from a file that others can
// read or write.
func TestKeyFileOfOthersIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key.json")
	for mode, want := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o666: false, 0o644: false, 0o620: false} {
		_ = os.Remove(path)
		if err := errors.Join(os.WriteFile(path, []byte(`{"AccessKeyId":"id-of-a-key","AccessKeySecret":"marker"}`), 0o600),
			os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		_, err := KeySource{File: path}.read()
		if want != (err == nil) || strings.Contains(fmt.Sprint(err), "marker") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
