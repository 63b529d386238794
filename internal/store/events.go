package store

import (
	"time"
)

const eventPrefix = "event/"

func eventKey(e Event) string { return eventPrefix + e.NextAt.UTC().Format(dueLayout) + "/" + e.ID }

// Event is something that happened to a rotation and has not been delivered yet.
type Event struct {
	ID   string    `json:"id"`
	Type string    `json:"type"`
	Time time.Time `json:"time"`

	Account  string `json:"account"`
	Secret   string `json:"secret"`
	Target   string `json:"target,omitempty"`
	Rotation string `json:"rotation,omitempty"`
	Trigger  string `json:"trigger,omitempty"`
	State    string `json:"state,omitempty"`
	Version  string `json:"version,omitempty"`
	Reason   string `json:"reason,omitempty"`

	// NextAt is when its delivery is tried next, and Failures how often it has failed.
	NextAt   time.Time `json:"next_at"`
	Failures int       `json:"failures,omitempty"`
	// Done are the receivers that have it, by a name that tells nothing of their URLs.
	Done []string `json:"done,omitempty"`
}

// PutEvent writes an event to be delivered at its NextAt.
func (tx *Tx) PutEvent(e Event) error { return save(tx, eventKey(e), e) }

// MoveEvent writes an event that was read at another time. A move that was made already by another node is not made again.
func (tx *Tx) MoveEvent(old, e Event) error {
	if there, err := tx.eventThere(old); err != nil || !there {
		return err
	}
	tx.write(eventKey(old), nil)
	return tx.PutEvent(e)
}

// DeleteEvent removes an event.
func (tx *Tx) DeleteEvent(e Event) { tx.write(eventKey(e), nil) }

func (tx *Tx) eventThere(e Event) (bool, error) {
	_, ok, err := load[Event](tx, eventKey(e))
	return ok, err
}

// EventsBefore lists at most limit events whose time has come, and says when the next one's comes; zero when none does in the
// next minute.
func (tx *Tx) EventsBefore(now time.Time, limit int) (events []Event, next time.Time, err error) {
	return timed[Event](tx, eventPrefix, now, limit)
}
