package durability_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/linear/model"
	"github.com/keyturn/keyturn/test/support"
)

// disk mounts a small file system, or skips the test.
func disk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := syscall.Mount("keyturn-test", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV,
		"size="+size+",mode=0700"); err != nil {
		t.Skipf("a full disk needs a small file system, which cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill writes a file of so many bytes, or until the disk is full.
func fill(t *testing.T, path string, bytes int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for n := 0; n < bytes; n += len(block) {
		if _, err := f.Write(block); err != nil {
			return
		}
	}
}

// TestAuditDiskFull fills the disk of the audit trail. What cannot be recorded does not happen:
// changes and reads are refused with 503 until there is room again, and then go on in the same
// process.
func TestAuditDiskFull(t *testing.T) {
	t.Parallel()
	room := disk(t, "1m")
	n := support.Seed(t)
	dir, list := t.TempDir(), newWriters(n)
	ballast := filepath.Join(room, "ballast")
	fill(t, ballast, 512<<10)
	s := start(t, dir, "--audit-dir", filepath.Join(room, "audit"))
	work(t, s.client, list)() // returns when every writer was refused once
	under := pending(list)
	fill(t, filepath.Join(room, "rest"), 1<<20) // not one byte is left
	// The writers were refused several at a time: a lone record may still fit into the last page,
	// and uses it up.
	probe := model.Op{Kind: model.Create, Name: "probe", Version: "v1", Data: "value"}
	for _, o := range []model.Op{
		probe, {Kind: model.Get, Name: list[0].names()[0]}, {Kind: model.List, Name: list[0].names()[0]},
	} {
		support.Until(t, o.String()+" to be refused with the disk of the trail full", func() bool {
			_, _, known, err := model.Send(t.Context(), s.client, o)
			if known != model.Answered && kms.CodeOf(err) != kms.CodeUnavailable {
				t.Errorf("%v with the disk of the trail full: %v; want %s", o, err, kms.CodeUnavailable)
			}
			return known != model.Answered
		})
	}
	health, _ := s.page("/healthz")
	var ready int
	support.Until(t, "/readyz to say that the trail cannot be written", func() bool {
		_, _, _, _ = model.Send(t.Context(), s.client, probe)
		var page string
		ready, page = s.page("/readyz")
		return ready == http.StatusServiceUnavailable && strings.Contains(page, "audit trail")
	})
	for _, name := range []string{ballast, filepath.Join(room, "rest")} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	support.Until(t, "the server to take changes again", func() bool {
		_, _, known, _ := model.Send(t.Context(), s.client, probe)
		return known == model.Answered
	})
	reads, records := settleAll(t, s.client, list, newTrail(filepath.Join(room, "audit")))
	acked := 0
	for _, w := range list {
		acked += len(w.acked)
	}
	if log := s.Log.String(); !strings.Contains(log, "audit trail cannot be written") ||
		!strings.Contains(log, "audit trail is written again") {
		t.Errorf("the log does not report the full disk and its end:\n%s", log)
	}
	t.Logf("%d changes acknowledged and found, in store and trail; %d under way when the disk was full; /healthz %d, "+
		"/readyz %d then; %d reads, %d records", acked, under, health, ready, reads, records)
	select {
	case <-s.Exited:
		t.Errorf("the server has ended:\n%s", s.Log.Tail())
	default:
	}
}

// TestStoreDiskFull fills the disk of a store that does not check its free space. etcd ends
// the process when it cannot write, so that nothing is acknowledged that is not kept; with room
// again the server starts, and all that was acknowledged is there.
func TestStoreDiskFull(t *testing.T) {
	t.Parallel()
	room := disk(t, "160m")
	n := support.Seed(t)
	list := newWriters(n)
	for _, w := range list {
		w.size = 20_000
	}
	dir, log := filepath.Join(room, "data"), filepath.Join(t.TempDir(), "audit")
	s := start(t, dir, "--audit-dir", log, "--store-reserve", "0")
	ballast := filepath.Join(room, "ballast")
	fill(t, ballast, int(left(t, room))-4<<20)
	stopped := time.AfterFunc(support.Patience, s.Kill)
	work(t, s.client, list)()
	if !stopped.Stop() {
		t.Fatalf("the disk did not become full in %v", support.Patience)
	}
	under := pending(list)
	fill(t, filepath.Join(room, "rest"), 160<<20)
	ended := "went on"
	support.Until(t, "the server to end or to answer", func() bool {
		select {
		case <-s.Exited:
			ended = "ended with " + s.ProcessState.String()
			return true
		default:
			status, _ := s.page("/healthz")
			return status != 0
		}
	})
	if ended != "went on" && !strings.Contains(s.Log.String(), "no space left on device") {
		t.Errorf("the server has ended and does not say why:\n%s", s.Log.Tail())
	}
	s.Kill()
	full := launch(t, dir, "--audit-dir", log, "--store-reserve", "0") // with the disk as full as can be
	select {
	case <-full.Exited:
		ended += "; a start on the full disk ended with " + full.ProcessState.String()
	case <-full.announced:
		ended += "; a start on the full disk succeeded"
	case <-time.After(support.Patience):
		t.Errorf("a start on the full disk neither succeeded nor failed:\n%s", full.Log.Tail())
	}
	full.Kill()
	for _, name := range []string{ballast, filepath.Join(room, "rest")} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	s = start(t, dir, "--audit-dir", log, "--store-reserve", "0")
	reads, records := settleAll(t, s.client, list, newTrail(log))
	if _, err := list[0].once(t.Context(), s.client, list[0].next()); err != nil {
		t.Errorf("a call after there was room again: %v", err)
	}
	acked := 0
	for _, w := range list {
		acked += len(w.acked)
	}
	t.Logf("the server %s; %d changes acknowledged and found, in store and trail; %d under way when the disk was full; "+
		"%d reads, %d records", ended, acked, under, reads, records)
}

// TestStoreDiskNearlyFull fills the disk of the store as a server is at work. It refuses changes
// before etcd would end it, reads go on, and with room again the same process takes changes; all
// that was acknowledged is there.
func TestStoreDiskNearlyFull(t *testing.T) {
	t.Parallel()
	room := disk(t, "400m")
	list := newWriters(support.Seed(t))
	for _, w := range list {
		w.size = 5_000
	}
	dir, log := filepath.Join(room, "data"), filepath.Join(t.TempDir(), "audit")
	s := start(t, dir, "--audit-dir", log)
	wait := work(t, s.client, list)
	ballast := filepath.Join(room, "ballast")
	fill(t, ballast, int(left(t, room))-(100<<20)) // less than the reserve, which is 128 MiB
	stopped := time.AfterFunc(support.Patience, s.Kill)
	wait()
	if !stopped.Stop() {
		t.Fatalf("changes were not refused in %v", support.Patience)
	}
	under := pending(list)
	for i := 0; left(t, room) > 0; i++ { // by another program, in 2 seconds or more, until not a byte is left
		fill(t, filepath.Join(room, fmt.Sprint("rest", i)), 5<<20)
		time.Sleep(100 * time.Millisecond)
	}
	probe := model.Op{Kind: model.Create, Name: "probe", Version: "v1", Data: "value"}
	_, _, known, err := model.Send(t.Context(), s.client, probe)
	if known == model.Answered ||
		kms.CodeOf(err) != kms.CodeUnavailable ||
		!strings.Contains(err.Error(), "store-reserve") {
		t.Errorf("%v with the disk full: %v; want %s and what to do", probe, err, kms.CodeUnavailable)
	}
	if _, page := s.page("/metrics"); !strings.Contains(page, "keyturn_changes_refused 1") {
		t.Error("the metrics do not say that changes are refused")
	}
	reads, _ := settleAll(t, s.client, list, newTrail(log)) // with the disk full
	others, err := filepath.Glob(filepath.Join(room, "rest*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(others, ballast) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	support.Until(t, "the server to take changes again", func() bool {
		_, _, known, _ := model.Send(t.Context(), s.client, probe)
		return known == model.Answered
	})
	_, records := settleAll(t, s.client, list, newTrail(log))
	select {
	case <-s.Exited:
		t.Errorf("the server has ended:\n%s", s.Log.Tail())
	default:
	}
	if log := s.Log.String(); !strings.Contains(log, "changes are refused") ||
		!strings.Contains(log, "changes are taken again") {
		t.Errorf("the log does not report the full disk and its end:\n%s", log)
	}
	acked := 0
	for _, w := range list {
		acked += len(w.acked)
	}
	t.Logf("%d changes acknowledged and found, in store and trail; %d under way when the disk was full; %d reads on the "+
		"full disk, %d records", acked, under, reads, records)
}

func left(t *testing.T, dir string) uint64 {
	t.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	return fs.Bavail * uint64(fs.Bsize)
}

// TestReadOnly starts a server on a file system that is read-only: it says so, leaves everything
// as it is, and starts when it can write again.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	room := disk(t, "300m")
	dir := filepath.Join(room, "data")
	s := start(t, dir, "--store-reserve", "0")
	if _, err := s.client.GetRandomPassword(t.Context(), &kms.GetRandomPasswordRequest{}); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("keyturn-test", room, "tmpfs", syscall.MS_REMOUNT|syscall.MS_NOSUID|syscall.MS_NODEV|flags,
			"size=300m,mode=0700"); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	again := launch(t, dir, "--store-reserve", "0")
	select {
	case <-again.Exited:
	case <-time.After(support.Patience):
		t.Fatal("a start on a read-only file system neither succeeded nor failed")
	}
	if text := again.Log.String(); !strings.Contains(text, "read-only file system") || !strings.Contains(text, dir) {
		t.Errorf("a start on a read-only file system says:\n%s", text)
	}
	remount(0)
	start(t, dir, "--store-reserve", "0")
}
