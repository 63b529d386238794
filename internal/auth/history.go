package auth

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

const (
	historyFormat = 2 // an earlier one is not read: its requests count as unknown
	historySuffix = ".nonces"
	recordSize    = 24 // bytes; those that are all zero hold no record
	// segmentLasts is how long one file is written to.
	segmentLasts = 5 * time.Minute
	// segmentKept is how long after its beginning a file may hold nonces of requests whose time is
	// still accepted.
	segmentKept = segmentLasts + 2*Window
	// maxHeader bounds the first line of a file.
	maxHeader = 1 << 10
)

// HistoryConfig says where nonces are stored.
type HistoryConfig struct {
	// Dir is a directory of its own; it is made with mode 0700.
	Dir string
	// Boot identifies the time since the machine was started; "" means that it is not known.
	Boot string
	// Identity returns a token that differs between a file and every copy of it, or "" when none is
	// known.
	Identity func(path string) string
	// Now is the clock.
	Now func() time.Time
	// Start is when this process began; when there is no history to go on with, requests with times
	// before that second are refused. Zero means that no request can have been accepted before.
	Start time.Time
	// Log is for the operator.
	Log *slog.Logger
}

// History keeps used nonces on disk, so that a restart accepts no request again and refuses none
// that is new.
//
// A record is stored in a mapped file, and not synced, before its request is answered: it outlives
// the process. Whether it outlived the machine is known only after an orderly stop. Otherwise, and
// when the files are a copy, they prove nothing, and requests of the time before the start are
// refused.
//
// A file is removed when its requests have expired by the clock. The clock may be wrong and come
// back: so times up to the latest one in a removed file are refused from the next start on. When
// the clock comes back by more than Window, that would refuse everybody: then the history proves
// nothing either.
type History struct {
	config HistoryConfig
	key    [32]byte // of the hashes
	loaded []record

	mu      sync.RWMutex     // held for reading while a record is stored
	file    *os.File         // guarded by mu; nil once it is closed or has failed
	window  *window          // guarded by mu; the part of file that records are stored in
	began   time.Time        // guarded by mu
	failed  bool             // guarded by mu
	since   int64            // guarded by mu; times up to this second are refused after the next start
	earlier map[string]*span // guarded by mu; the files before this one, by path
	number  int64            // guarded by mu; of the newest file

	latest atomic.Int64 // the latest time in file
}

// span is the time of a file: when it was begun, and the latest time of its requests in Unix
// seconds.
type span struct {
	began  time.Time
	latest int64
}

// record is a used nonce: the hashes of its access key and of both, and the time of its request in
// Unix seconds.
type record struct {
	key, id uint64
	at      int64
}

// ended is the last record after an orderly stop.
var ended = record{^uint64(0), ^uint64(0), -1}

// header is the first line of a file.
type header struct {
	Format int       `json:"format"`
	Boot   string    `json:"boot"`
	Began  time.Time `json:"began"`
	File   string    `json:"file"` // the identity of this file
	Key    []byte    `json:"key"`
	Since  int64     `json:"since"`
}

// OpenHistory reads the history and begins a new file.
func OpenHistory(c HistoryConfig) (*History, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("nonce history: %w", err)
	}
	h := &History{config: c, earlier: map[string]*span{}}
	trusted, err := h.load()
	if err != nil {
		return nil, fmt.Errorf("nonce history: %w", err)
	}
	if !trusted {
		h.loaded, h.since, h.earlier = nil, 0, map[string]*span{}
		if !c.Start.IsZero() {
			h.since = beforeStart(c.Start)
		}
		if _, err := rand.Read(h.key[:]); err != nil {
			return nil, fmt.Errorf("nonce history: %w", err)
		}
		if err := h.removeAll(); err != nil {
			return nil, fmt.Errorf("nonce history: %w", err)
		}
	}
	if err := h.begin(c.Now()); err != nil {
		return nil, fmt.Errorf("nonce history: %w", err)
	}
	return h, nil
}

// beforeStart returns the last second whose times are refused by a process that knows nothing of
// the time before its start. Times have no fraction: to refuse the second of the start too would
// refuse every client for up to a second.
func beforeStart(start time.Time) int64 { return start.Unix() - 1 }

// segments returns the files in the order in which they were begun.
func (h *History) segments() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(h.config.Dir, "*"+historySuffix))
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(numberOf(a), numberOf(b)) })
	return paths, err
}

func numberOf(path string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), historySuffix), 10, 64)
	return n
}

// load reads every file. It reports whether they hold all nonces that were used.
func (h *History) load() (trusted bool, err error) {
	paths, err := h.segments()
	if err != nil {
		return false, err
	}
	orderly := false
	for i, path := range slices.Backward(paths) {
		data, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		line, _, ok := bytes.Cut(data[:min(len(data), maxHeader)], []byte("\n"))
		var first header
		if !ok || json.Unmarshal(line, &first) != nil || first.Format != historyFormat || len(first.Key) != len(h.key) {
			return false, nil
		}
		records := decodeRecords(data[len(line)+1:])
		if i == len(paths)-1 {
			h.key, h.number = [32]byte(first.Key), numberOf(path)
		}
		orderly = orderly || len(records) > 0 && records[len(records)-1] == ended
		sameBoot := first.Boot != "" && first.Boot == h.config.Boot
		sameFile := first.File != "" && first.File == h.config.Identity(path)
		if !sameFile || !sameBoot && !orderly || h.key != [32]byte(first.Key) {
			return false, nil
		}
		h.since = max(h.since, first.Since)
		h.loaded = append(h.loaded, records...)
		s := &span{began: first.Began}
		for _, r := range records {
			s.latest = max(s.latest, r.at)
		}
		h.earlier[path] = s
	}
	if now := h.config.Now(); h.since > now.Add(Window).Unix() {
		h.config.Log.Warn("the clock was ahead and has come back: requests of the time before are refused",
			"until", time.Unix(h.since, 0), "now", now)
		return false, nil
	}
	return len(paths) > 0, nil
}

// decodeRecords reads records, without those that are all zero.
func decodeRecords(data []byte) []record {
	list := make([]record, 0, len(data)/recordSize)
	for ; len(data) >= recordSize; data = data[recordSize:] {
		r := record{
			binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[8:]), int64(binary.LittleEndian.Uint64(data[16:])),
		}
		if r != (record{}) {
			list = append(list, r)
		}
	}
	return list
}

func (r record) encode() (b [recordSize]byte) {
	binary.LittleEndian.PutUint64(b[:], r.key)
	binary.LittleEndian.PutUint64(b[8:], r.id)
	binary.LittleEndian.PutUint64(b[16:], uint64(r.at))
	return b
}

// begin begins a new file, and removes those whose requests have all expired. The caller must be
// the only user of h.
func (h *History) begin(now time.Time) error {
	h.number++
	path := filepath.Join(h.config.Dir, strconv.FormatInt(h.number, 10)+historySuffix)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if h.file != nil {
		h.earlier[h.file.Name()] = &span{h.began, h.latest.Load()}
	}
	var expired []string
	for path, s := range h.earlier {
		if s.began.Before(now.Add(-segmentKept)) {
			expired = append(expired, path)
			h.since = max(h.since, s.latest)
		}
	}
	line, err := h.header(path, now)
	var w *window
	if err == nil {
		w, err = openWindow(file, line)
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if h.file != nil {
		err = errors.Join(h.window.close(), h.file.Close())
	}
	h.file, h.window, h.began = file, w, now
	h.latest.Store(0)
	for _, path := range expired {
		err = errors.Join(err, remove(path))
		delete(h.earlier, path)
	}
	return err
}

// header returns the first line of a file, padded to the length of whole records.
func (h *History) header(path string, now time.Time) ([]byte, error) {
	line, err := json.Marshal(header{
		Format: historyFormat, Boot: h.config.Boot, Began: now, File: h.config.Identity(path), Key: h.key[:], Since: h.since,
	})
	if err != nil {
		return nil, err
	}
	for (len(line)+1)%recordSize != 0 {
		line = append(line, ' ')
	}
	return append(line, '\n'), nil
}

// removeAll removes every file.
func (h *History) removeAll() error {
	paths, err := h.segments()
	for _, path := range paths {
		err = errors.Join(err, remove(path))
	}
	return err
}

// add stores a record. After a failure no more is stored, and nothing is left that the next start
// could go on with.
func (h *History) add(r record, now time.Time) error {
	h.mu.RLock()
	stored, failed := false, h.failed
	var err error
	if h.file != nil && now.Sub(h.began).Abs() <= segmentLasts {
		stored, err = h.storeLocked(r)
	}
	h.mu.RUnlock()
	if failed || stored {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed {
		return nil
	}
	if h.file == nil {
		return fault.New(fault.Unavailable, "The server stops.")
	}
	if err == nil && now.Sub(h.began).Abs() > segmentLasts {
		err = h.begin(now)
	}
	for err == nil {
		if stored, err = h.storeLocked(r); stored {
			return nil
		}
		if err == nil {
			err = h.window.next(h.file)
		}
	}
	h.config.Log.Error("nonces cannot be stored: after a restart, requests of the time before are refused", "err", err)
	_ = h.window.close() // it has failed already
	_ = h.file.Close()
	h.file = nil
	if removeErr := h.removeAll(); removeErr != nil {
		return fault.Wrap(fault.Unavailable, removeErr, "Nonces cannot be stored.")
	}
	h.failed = true
	return nil
}

// storeLocked stores a record in the window; it returns false when the window has no room.
func (h *History) storeLocked(r record) (bool, error) {
	for latest := h.latest.Load(); r.at > latest && !h.latest.CompareAndSwap(latest, r.at); {
		latest = h.latest.Load()
	}
	return h.window.store(r)
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Close records a graceful shutdown. The caller must verify no further request.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil {
		return nil
	}
	earlier, err := h.segments()
	for _, path := range earlier {
		if path != h.file.Name() {
			err = errors.Join(err, syncFile(path))
		}
	}
	used := h.window.end()
	err = errors.Join(err, h.window.close(), h.file.Truncate(used))
	if b := ended.encode(); err == nil {
		_, err = h.file.WriteAt(b[:], used)
	}
	err = errors.Join(err, h.file.Sync(), h.file.Close())
	h.file = nil
	return err
}

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
