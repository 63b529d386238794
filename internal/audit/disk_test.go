package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// disk opens real files that fail on demand.
type disk struct {
	mu                                 sync.Mutex
	openErr, writeErr, cutErr, syncErr error
	short                              int           // bytes that a failing write writes all the same
	hold                               chan struct{} // not nil: a sync waits for it
	syncs                              int
}

func (d *disk) set(change func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func (d *disk) open(name string, create bool) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.openErr != nil {
		return nil, d.openErr
	}
	f, err := openFile(name, create)
	return diskFile{f, d}, err
}

type diskFile struct {
	file
	d *disk
}

func (f diskFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.writeErr == nil {
		return f.file.WriteAt(b, off)
	}
	n, err := f.file.WriteAt(b[:min(f.d.short, len(b))], off)
	return n, errors.Join(f.d.writeErr, err)
}

func (f diskFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.cutErr != nil {
		return f.d.cutErr
	}
	return f.file.Truncate(size)
}

func (f diskFile) Sync() error {
	f.d.mu.Lock()
	hold := f.d.hold
	f.d.mu.Unlock()
	if hold != nil {
		<-hold
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.d.syncs++
	if f.d.syncErr != nil {
		return f.d.syncErr
	}
	return f.file.Sync()
}

func failingConfig(t *testing.T) (Config, *disk) {
	cfg, d := testConfig(t), &disk{}
	cfg.open, cfg.SyncEvery = d.open, time.Hour
	return cfg, d
}

var errFull = fmt.Errorf("write segment: %w", syscall.ENOSPC)

func TestWriteFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		fail func(*disk)
	}{
		{"nothing written", func(d *disk) { d.writeErr = errFull }},
		{"short write", func(d *disk) { d.writeErr, d.short = errFull, 100 }},
		{"whole line written all the same", func(d *disk) { d.writeErr, d.short = errFull, 1<<20 }},
		{"cannot cut back", func(d *disk) { d.writeErr, d.short, d.cutErr = errFull, 100, errFull }},
		{"cannot cut back a whole line", func(d *disk) { d.writeErr, d.short, d.cutErr = errFull, 1<<20, errFull }},
		{"cannot reopen", func(d *disk) { d.writeErr, d.short, d.cutErr, d.openErr = errFull, 100, errFull, errFull }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var logged bytes.Buffer
			cfg, d := failingConfig(t)
			cfg.Logger = slog.New(slog.NewTextHandler(&logged, nil))
			l, stop := start(t, cfg)
			mustAppend(t, l, false, "1")
			d.set(tt.fail)
			for _, durable := range []bool{true, false, true} {
				err := l.Append(context.Background(), call("lost"), durable)
				wantError(t, err, "audit: ", "no space left on device")
				if !l.Failing() {
					t.Error("the log does not say that it fails")
				}
				if !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("Append = %v, want one that wraps ENOSPC", err)
				}
			}
			d.set(func(d *disk) { d.writeErr, d.cutErr, d.openErr = nil, nil, nil })
			mustAppend(t, l, true, "2")
			mustAppend(t, l, false, "3")
			if l.Failing() {
				t.Error("the log says that it fails when it does not")
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			mustVerify(t, cfg.Dir, 3)
			for i, r := range readRecords(t, cfg.Dir) {
				if want := fmt.Sprint(i + 1); r.RequestID != want {
					t.Errorf("record %d is %q, want %q", i+1, r.RequestID, want)
				}
			}
			if strings.Count(logged.String(), "audit trail cannot be written") != 1 ||
				strings.Count(logged.String(), "audit trail is written again") != 1 {
				t.Errorf("log = %s\nwant one line when it stops and one when it goes on", logged.String())
			}
		})
	}
}

// After a failed fsync the kernel may forget what was written. What was acknowledged is written
// again.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	cfg, d := failingConfig(t)
	l, stop := start(t, cfg)
	mustAppend(t, l, true, "1")
	mustAppend(t, l, false, "2")
	d.set(func(d *disk) { d.syncErr = syscall.EIO })
	wantError(t, l.Append(context.Background(), call("3"), true), "audit: sync "+segmentName(1)+": input/output error")
	wantError(t, l.Append(context.Background(), call("lost"), false), "audit: repair segment "+segmentName(1)+
		": input/output error")

	segment := filepath.Join(cfg.Dir, segmentName(1))
	text, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(text, '\n') + 1
	if err := os.WriteFile(segment, append(bytes.Clone(text[:first]), make([]byte, len(text)-first)...),
		filePerm); err != nil {
		t.Fatal(err) // what the kernel forgot reads as zeros
	}
	d.set(func(d *disk) { d.syncErr = nil })
	mustAppend(t, l, false, "4")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// Record 3 was refused after its line was written, and stays: it says that somebody tried.
	mustVerify(t, cfg.Dir, 4)
}

func TestStopReportsFailedSync(t *testing.T) {
	t.Parallel()
	cfg, d := failingConfig(t)
	l, stop := start(t, cfg)
	mustAppend(t, l, false, "1")
	d.set(func(d *disk) { d.syncErr = syscall.EIO })
	wantError(t, stop(), "audit: sync "+segmentName(1)+": input/output error")
	if l, err := Open(cfg); err == nil {
		t.Error("Open of a disk that cannot sync succeeds")
		_ = l.Close()
	}
}

func TestRotationFails(t *testing.T) {
	t.Parallel()
	cfg, d := failingConfig(t)
	cfg.SegmentBytes = 1
	l, stop := start(t, cfg)
	mustAppend(t, l, false, "1")
	d.set(func(d *disk) { d.openErr = errFull })
	wantError(t, l.Append(context.Background(), call("lost"), false), "audit: open segment: ")
	d.set(func(d *disk) { d.openErr = nil })
	mustAppend(t, l, true, "2")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if r := mustVerify(t, cfg.Dir, 2); r.Segments != 2 {
		t.Errorf("%d segments, want 2", r.Segments)
	}
}

// One sync serves all who wait, and a read does not wait for it.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	cfg, d := failingConfig(t)
	l, stop := start(t, cfg)
	hold := make(chan struct{})
	d.set(func(d *disk) { d.hold, d.syncs = hold, 0 })
	const changes = 20
	results := make(chan error, changes)
	for i := range changes {
		go func() { results <- l.Append(context.Background(), call(fmt.Sprint("change ", i)), true) }()
	}
	for written := 0; written < changes; {
		mustAppend(t, l, false, "read") // returns while the sync is held; each is one round of the writer
		text, err := os.ReadFile(filepath.Join(cfg.Dir, segmentName(1)))
		if err != nil {
			t.Fatal(err)
		}
		written = bytes.Count(text, []byte(`"change `))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Append(ctx, call("late"), true); !errors.Is(err, context.Canceled) {
		t.Errorf("Append with an ended context = %v", err)
	}
	select {
	case err := <-results:
		t.Errorf("a durable Append returned before its sync: %v", err)
	default:
	}
	close(hold)
	for range changes {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if d.syncs > 5 {
		t.Errorf("%d syncs for %d changes, want a few", d.syncs, changes)
	}
	if _, err := Verify(cfg.Dir); err != nil {
		t.Error(err)
	}
}

// Records nobody waits for reach the disk by themselves, and a broken trail mends by itself.
func TestTick(t *testing.T) {
	t.Parallel()
	cfg, d := failingConfig(t)
	cfg.SyncEvery = time.Millisecond
	l, stop := start(t, cfg)
	synced := func(atLeast int) bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.syncs >= atLeast
	}
	d.set(func(d *disk) { d.syncs, d.syncErr = 0, syscall.EIO })
	mustAppend(t, l, false, "1")
	for !synced(3) {
		time.Sleep(time.Millisecond) // bounded by the test's own limit
	}
	d.set(func(d *disk) { d.syncs, d.syncErr = 0, nil })
	for !synced(1) {
		time.Sleep(time.Millisecond)
	}
	mustAppend(t, l, false, "2")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, cfg.Dir, 2)
}
