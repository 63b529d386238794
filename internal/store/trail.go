package store

// TrailHead is the last known state of the audit trail of one node. Verification finds lost records
// by it.
type TrailHead struct {
	Node string `json:"node"`
	// Seq and Hash are those of the last record that is known to be on disk; Seq is 0 if there is
	// none.
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
	// First is the first record that must exist: retention has removed those before.
	First uint64 `json:"first"`
	// KeyedFrom is the first record that must have a MAC.
	KeyedFrom uint64 `json:"keyed_from"`
}

// TrailHead reads the head of a node's trail; ok is false if none was stored.
func (tx *Tx) TrailHead(node string) (TrailHead, bool, error) {
	return trailHeadKind.load(tx, node)
}

// PutTrailHead writes the head of a node's trail, even if the store has reached its quota.
func (tx *Tx) PutTrailHead(h TrailHead) error { return trailHeadKind.save(tx, h) }

// TrailRun is the state of the last run of a node, which writes the node's trail.
type TrailRun struct {
	Node string `json:"node"`
	// Running is true while the node runs. It is still true at the next start if the head was not
	// stored at the end of the run.
	Running bool `json:"running"`
	// Sinks are the numbers of the last records that the sinks have, by the names of the sinks.
	Sinks map[string]uint64 `json:"sinks,omitempty"`
}

// TrailRun reads the last run of a node; ok is false if none was stored.
func (tx *Tx) TrailRun(node string) (TrailRun, bool, error) {
	return trailRunKind.load(tx, node)
}

// PutTrailRun writes the run of a node, even if the store has reached its quota.
func (tx *Tx) PutTrailRun(r TrailRun) error { return trailRunKind.save(tx, r) }
