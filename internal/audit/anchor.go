package audit

import (
	"errors"
	"path/filepath"
)

// Head is what a store keeps of a trail, so that a loss of records is found. It belongs to one
// node.
type Head struct {
	Node string `json:"node"`
	// Seq and Hash are of the last record that is known to be on disk; 0 when there is none.
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
	// First is the first record that must be there: retention has removed those before.
	First uint64 `json:"first"`
	// KeyedFrom is the first record that must have a MAC under the trail's key.
	KeyedFrom uint64 `json:"keyed_from"`
}

// Anchor is what a trail is held to when it resumes.
type Anchor struct {
	Node string
	Key  *Key
	// Head is what was kept last; nil when nothing was.
	Head *Head
	// Expected says that something must have been kept.
	Expected bool
	// Strict refuses to resume after a loss. Otherwise the trail begins anew behind it, with a
	// record that says so.
	Strict bool
}

// Peek returns the head of a trail that has none yet, before Resume. A trail whose end cannot be
// read is an error.
func (l *Log) Peek(node string) (Head, error) {
	end, err := findEnd(l.cfg.Dir, nil)
	if err = errors.Join(err, end.err); err != nil {
		return Head{}, err
	}
	h := Head{Node: node, Seq: end.tail.end.seq, Hash: end.tail.end.hash, First: 1, KeyedFrom: end.tail.end.seq + 1}
	if len(end.files) > 0 {
		h.First = segmentSeq(filepath.Base(end.files[0]))
	}
	return h, nil
}

// Head is what must be kept of the trail now: all of its records are on disk.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.head
	if end := l.w.onDisk.Load(); end != nil {
		h.Seq, h.Hash = end.seq, end.hash
	}
	return h
}

// Losses counts the losses that this process has found.
func (l *Log) Losses() uint64 { return l.w.losses.Load() }

// Rotated receives after a segment was finished.
func (l *Log) Rotated() <-chan struct{} { return l.w.rotated }
