package store

import "time"

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

	// NextAt is when the next attempt to deliver it is due, and Failures how many attempts have
	// failed.
	NextAt   time.Time `json:"next_at"`
	Failures int       `json:"failures,omitempty"`
	// Done are the receivers that have it, by names that do not reveal their URLs.
	Done []string `json:"done,omitempty"`
}

func eventPath(e Event) string { return stamp(e.NextAt) + "/" + e.ID }

// PutEvent writes an event, to be delivered at its NextAt.
func (tx *Tx) PutEvent(e Event) error { return eventKind.save(tx, e) }

// MoveEvent replaces the event old, which was read in another transaction, by e. It does nothing if
// another node has replaced or removed old already.
func (tx *Tx) MoveEvent(old, e Event) error {
	if _, ok, err := eventKind.load(tx, eventPath(old)); err != nil || !ok {
		return err
	}
	tx.DeleteEvent(old)
	return tx.PutEvent(e)
}

// DeleteEvent removes an event.
func (tx *Tx) DeleteEvent(e Event) { eventKind.delete(tx, eventPath(e)) }

// EventsBefore returns at most limit events whose NextAt has come, and the next one's; zero if none
// comes within a minute.
func (tx *Tx) EventsBefore(now time.Time, limit int) (events []Event, next time.Time, err error) {
	return eventKind.before(tx, now, limit)
}

// CountEvents returns how many events a receiver does not have yet.
func (tx *Tx) CountEvents() (n int, err error) {
	err = eventKind.scan(tx, "", "", func(Event) bool {
		n++
		return true
	})
	return n, err
}
