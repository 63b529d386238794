package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/keyturn/keyturn/internal/store"
)

const (
	markName  = "store-mark.json"
	markEvery = 3 * time.Second
)

// mark records the state of a node's store in a file beside it. After a start it shows whether the
// store was restored from a copy: then credentials may have changed since, and their records may be
// wrong.
type mark struct {
	// Cluster and Revision identify the state of the store. A restored copy has another cluster or a
	// lower revision.
	Cluster  string `json:"cluster"`
	Revision int64  `json:"revision"`
	// File is the identity of the file of the mark, which no copy has: the mark may have been restored
	// together with the store. Empty where the file system has no such identity.
	File string `json:"file,omitempty"`
}

// readMark reads the mark; ok is false when there is none.
func readMark(path string) (m mark, ok bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if json.Unmarshal(data, &m) != nil {
		return mark{}, true, nil // it says nothing, so it is not of this store
	}
	return m, true, nil
}

// writeMark replaces the mark. It records the identity of the temporary file, which is then
// renamed. The file is not synced: an older mark only detects less.
func writeMark(path string, p store.Position) error {
	tmp, err := os.OpenFile(filepath.Join(filepath.Dir(path), "."+markName), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	m := mark{Cluster: fmt.Sprintf("%x", p.Cluster), Revision: p.Revision, File: fileIdentity(tmp.Name())}
	data, err := json.Marshal(m)
	if err == nil {
		_, err = tmp.Write(append(data, '\n'))
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path) // what is left of a write that was cut off is used for the next
}

// restored returns why a store at that position must be a restored copy; empty if it need not be.
func (m mark) restored(p store.Position, file string) string {
	switch {
	case m.Cluster != fmt.Sprintf("%x", p.Cluster):
		return "it is not the store that this node used before"
	case m.Revision > p.Revision:
		return "this node has seen a later state of it"
	case m.File != "" && file != "" && m.File != file:
		return "the data directory is a copy"
	}
	return ""
}

// checkMark finds out whether the store was restored from a copy. If so, that is stored, for the
// engine of whichever node rotates, before the mark says otherwise. fresh is a store that this
// start has made.
func (s *Server) checkMark(ctx context.Context, fresh bool) error {
	path := filepath.Join(s.config.DataDir, markName)
	p, err := s.db.Position(ctx)
	if err != nil {
		return err
	}
	m, there, err := readMark(path)
	if err != nil {
		return fmt.Errorf("mark of the store: %w", err)
	}
	why := ""
	switch {
	case there:
		why = m.restored(p, fileIdentity(path))
	case !fresh && s.config.Cluster == nil && len(s.config.Etcd.Endpoints) == 0:
		why = "this node has no mark of it"
	}
	if why != "" && !fresh {
		s.restored = why
		keys, err := s.enabledKeys(ctx)
		if err != nil {
			return err
		}
		s.config.Logger.Error("the store counts as restored from a copy: access keys, policies and users are what they "+
			"were then, those that were deleted since included; "+
			"every rotated credential is checked at its target", "why", why, "enabled_access_keys", keys)
		if err := s.db.SetRestored(ctx, store.Restored{At: s.config.Now().UTC(), Why: why}); err != nil {
			return err
		}
		if p, err = s.db.Position(ctx); err != nil {
			return err
		}
	}
	s.putMark(path, p)
	return nil
}

// enabledKeys counts the access keys that work.
func (s *Server) enabledKeys(ctx context.Context) (n int, err error) {
	err = store.Snapshot(ctx, s.db).AccessKeys(func(k store.AccessKey) bool {
		if !k.Disabled {
			n++
		}
		return true
	})
	return n, err
}

// putMark writes the mark. A disk that takes nothing is logged, and stops nothing.
func (s *Server) putMark(path string, p store.Position) {
	if err := writeMark(path, p); err != nil {
		s.config.Logger.Warn("the mark of the store was not written: a restore of the store from a copy may not be detected",
			"err", err)
	}
}

// markLoop keeps the mark up with the store, until ctx ends and once more then.
func (s *Server) markLoop(ctx context.Context) {
	path := filepath.Join(s.config.DataDir, markName)
	last := int64(0)
	look := func(ctx context.Context) {
		bounded, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		p, err := s.db.Position(bounded)
		if err != nil || p.Revision == last { // the parts that need the store report that it does not answer
			return
		}
		s.putMark(path, p)
		last = p.Revision
	}
	t := time.NewTicker(markEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			look(ctx)
		case <-ctx.Done():
			look(context.WithoutCancel(ctx))
			return
		}
	}
}
