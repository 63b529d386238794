package store

const (
	trailPrefix    = "trail/"
	trailRunPrefix = "trailrun/"
)

func trailKey(node string) string    { return trailPrefix + node }
func trailRunKey(node string) string { return trailRunPrefix + node }

// TrailHead is what the store knows of the audit trail of one node, so that a loss of records is
// found.
type TrailHead struct {
	Node string `json:"node"`
	// Seq and Hash are of the last record that is known to be on disk; Seq is 0 when there is none.
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
	// First is the first record that must be there: retention has removed those before.
	First uint64 `json:"first"`
	// KeyedFrom is the first record that must have a MAC.
	KeyedFrom uint64 `json:"keyed_from"`
}

// TrailHead reads the head of a node's trail; ok is false when none was kept.
func (tx *Tx) TrailHead(node string) (TrailHead, bool, error) {
	return load[TrailHead](tx, trailKey(node))
}

// PutTrailHead writes it.
func (tx *Tx) PutTrailHead(h TrailHead) error { return save(tx, trailKey(h.Node), h) }

// TrailRun is what the store knows of the run of a node that writes its trail.
type TrailRun struct {
	Node string `json:"node"`
	// Running is set while the node runs. It is still set at the next start when the head was not
	// stored at the end of the run.
	Running bool `json:"running"`
	// Sinks are the numbers of the last records that the sinks have, by the names of the sinks.
	Sinks map[string]uint64 `json:"sinks,omitempty"`
}

// TrailRun reads the run of a node; ok is false when none was kept.
func (tx *Tx) TrailRun(node string) (TrailRun, bool, error) {
	return load[TrailRun](tx, trailRunKey(node))
}

// PutTrailRun writes it.
func (tx *Tx) PutTrailRun(r TrailRun) error { return save(tx, trailRunKey(r.Node), r) }

// FreeSpace is how many bytes the file system of dir has left for this process; ok is false when
// that is not known.
func FreeSpace(dir string) (free uint64, ok bool) {
	free, _, ok = freeSpace(dir)
	return free, ok
}
