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

// Anchor is what a trail is compared with when it resumes.
type Anchor struct {
	Node string
	Key  *Key
	// Head is the head that was stored last; nil when none was.
	Head *Head
	// Expected says that a head must have been stored.
	Expected bool
	// Strict refuses to resume after a loss. Otherwise the trail begins anew behind it, with a
	// record that says so.
	Strict bool
}

// Peek returns the head of a trail for which none is stored, before Resume. The end of the trail
// must be readable.
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

// Head returns the head to store now. All records up to it are on disk.
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
