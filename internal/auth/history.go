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
	"time"

	"github.com/keyturn/keyturn/internal/fault"
)

const (
	historyFormat = 1
	historySuffix = ".nonces"
	recordSize    = 24
	// segmentLasts is how long one file is written to.
	segmentLasts = 5 * time.Minute
	// segmentKept is how long after its beginning a file may hold nonces of requests whose time is still accepted.
	segmentKept = segmentLasts + 2*Window
	// maxHeader bounds the first line of a file.
	maxHeader = 1 << 10
)

// HistoryConfig says where used nonces are written down.
type HistoryConfig struct {
	// Dir is a directory of its own; it is made with mode 0700.
	Dir string
	// Boot identifies the time since the machine was started; "" means that it is not known.
	Boot string
	// Identity tells a file from every copy of it; it returns "" when that is not known.
	Identity func(path string) string
	// Now is the clock.
	Now func() time.Time
	// Start is when this process began; when there is no history to go on with, requests with times before that second
	// are refused. Zero means that no request can have been accepted before.
	Start time.Time
	// Log is for the operator.
	Log *slog.Logger
}

// History keeps used nonces on disk, so that a restart accepts no request again and refuses none that is new.
//
// A record is written, and not synced, before its request is answered: it outlives the process. Whether it outlived the
// machine is known after an orderly stop alone. Otherwise, and when the files are a copy, they prove nothing, and
// requests of the time before the start are refused.
type History struct {
	config HistoryConfig
	key    [32]byte // of the hashes
	since  int64    // times up to this second are refused
	loaded []record

	mu     sync.RWMutex // held for reading while a record is written
	file   *os.File     // guarded by mu; nil once it is closed or has failed
	began  time.Time    // guarded by mu
	failed bool         // guarded by mu
}

// record is a used nonce: the hashes of its access key and of both, and the time of its request in Unix seconds.
type record struct {
	key, id uint64
	at      int64
}

// ended is the last record after an orderly stop.
var ended = record{^uint64(0), ^uint64(0), -1}

// header is the first line of a file.
type header struct {
	Format int    `json:"format"`
	Boot   string `json:"boot"`
	File   string `json:"file"` // the identity of this file
	Key    []byte `json:"key"`
	Since  int64  `json:"since"`
}

// OpenHistory reads the history and begins a new file.
func OpenHistory(c HistoryConfig) (*History, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("nonce history: %w", err)
	}
	h := &History{config: c}
	trusted, err := h.load()
	if err != nil {
		return nil, fmt.Errorf("nonce history: %w", err)
	}
	if !trusted {
		h.loaded, h.since = nil, 0
		if !c.Start.IsZero() {
			h.since = beforeStart(c.Start)
		}
		if _, err := rand.Read(h.key[:]); err != nil {
			return nil, fmt.Errorf("nonce history: %w", err)
		}
		if err := h.removeBefore(time.Time{}); err != nil {
			return nil, fmt.Errorf("nonce history: %w", err)
		}
	}
	if err := h.begin(c.Now()); err != nil {
		return nil, fmt.Errorf("nonce history: %w", err)
	}
	return h, nil
}

// beforeStart returns the last second whose times are refused by a process that knows nothing of the time before its
// start. Times have no fraction: to refuse the second of the start too would refuse every client for up to a second.
func beforeStart(start time.Time) int64 { return start.Unix() - 1 }

// segments returns the files by age, oldest first.
func (h *History) segments() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(h.config.Dir, "*"+historySuffix))
	slices.SortFunc(paths, func(a, b string) int { return cmp.Compare(beginningOf(a), beginningOf(b)) })
	return paths, err
}

func beginningOf(path string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(filepath.Base(path), historySuffix), 10, 64)
	return n
}

// load reads every file that can still matter. It reports whether they hold all nonces that were used.
func (h *History) load() (trusted bool, err error) {
	paths, err := h.segments()
	if err != nil {
		return false, err
	}
	oldest := h.config.Now().Add(-segmentKept).UnixNano()
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
			h.key = [32]byte(first.Key)
		}
		orderly = orderly || len(records) > 0 && records[len(records)-1] == ended
		sameBoot := first.Boot != "" && first.Boot == h.config.Boot
		sameFile := first.File != "" && first.File == h.config.Identity(path)
		if !sameFile || !sameBoot && !orderly || h.key != [32]byte(first.Key) {
			return false, nil
		}
		h.since = max(h.since, first.Since)
		h.loaded = append(h.loaded, records...)
		if beginningOf(path) < oldest {
			break // and those before are older
		}
	}
	return len(paths) > 0, nil
}

// decodeRecords reads records; one that is cut off is not read, as its request was not answered.
func decodeRecords(data []byte) []record {
	list := make([]record, 0, len(data)/recordSize)
	for ; len(data) >= recordSize; data = data[recordSize:] {
		list = append(list, record{
			binary.LittleEndian.Uint64(data), binary.LittleEndian.Uint64(data[8:]), int64(binary.LittleEndian.Uint64(data[16:])),
		})
	}
	return list
}

func (r record) encode() (b [recordSize]byte) {
	binary.LittleEndian.PutUint64(b[:], r.key)
	binary.LittleEndian.PutUint64(b[8:], r.id)
	binary.LittleEndian.PutUint64(b[16:], uint64(r.at))
	return b
}

// begin begins a new file. Nobody else may use h.
func (h *History) begin(now time.Time) error {
	var file *os.File
	var err error
	for name := now.UnixNano(); ; name++ { // the clock may stand still, or have been set back
		path := filepath.Join(h.config.Dir, strconv.FormatInt(name, 10)+historySuffix)
		if file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600); !errors.Is(err, fs.ErrExist) {
			break
		}
	}
	if err != nil {
		return err
	}
	line, err := json.Marshal(header{
		Format: historyFormat, Boot: h.config.Boot, File: h.config.Identity(file.Name()), Key: h.key[:], Since: h.since,
	})
	if err == nil {
		_, err = file.Write(append(line, '\n'))
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	if h.file != nil {
		err = h.file.Close()
	}
	h.file, h.began = file, now
	return errors.Join(err, h.removeBefore(now.Add(-segmentKept)))
}

// removeBefore removes the files that began before a time; those of any time for the zero time.
func (h *History) removeBefore(t time.Time) error {
	paths, err := h.segments()
	for _, path := range paths {
		if h.file != nil && path == h.file.Name() {
			continue
		}
		if t.IsZero() || beginningOf(path) < t.UnixNano() {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// add writes a record. After a failure no more is written, and nothing is left that the next start could go on with.
func (h *History) add(r record, now time.Time) error {
	h.mu.RLock()
	file, failed, due := h.file, h.failed, now.Sub(h.began).Abs() > segmentLasts
	var err error
	if file != nil && !due {
		b := r.encode()
		_, err = file.Write(b[:])
	}
	h.mu.RUnlock()
	switch {
	case failed:
		return nil
	case err == nil && !due && file != nil:
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
	if err == nil {
		if now.Sub(h.began).Abs() > segmentLasts {
			err = h.begin(now)
		}
		if b := r.encode(); err == nil {
			_, err = h.file.Write(b[:])
		}
	}
	if err == nil {
		return nil
	}
	h.config.Log.Error("used nonces cannot be written down: after a restart, requests of the time before are refused", "err", err)
	path := h.file.Name()
	_ = h.file.Close() // it has failed already
	h.file = nil
	if removeErr := errors.Join(h.removeBefore(time.Time{}), remove(path)); removeErr != nil {
		return fault.Wrap(fault.Unavailable, removeErr, "Used nonces cannot be written down.")
	}
	h.failed = true
	return nil
}

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Close notes that the server has stopped in order. No request may be verified any more.
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
	if b := ended.encode(); err == nil {
		_, err = h.file.Write(b[:])
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
