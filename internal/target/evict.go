package target

import "context"

// Evictor is a target whose accounts may change their own password. The holder of a leaked
// credential may have done so before an emergency, and Retire leaves a password alone that is not
// the old one. It is for [Double] and [Overlap].
type Evictor interface {
	// RetireOrEvict is Retire, and removes another password than c.New that the account of c.Old has,
	// if evict returns true. It calls evict at most once, when there is one or that is not known,
	// before it changes anything and under the lock that excludes other engines. After an error of
	// evict it has changed nothing. A password that Retire itself leaves in place of c.Old is none.
	RetireOrEvict(ctx context.Context, c Change, evict Evict) error
}

// Evict decides whether a password is removed that is not the one to be retired.
type Evict func(context.Context, Foreign) (bool, error)

// EvictNothing is the decision that makes RetireOrEvict a Retire.
func EvictNothing(context.Context, Foreign) (bool, error) { return false, nil }

// Foreign is a password that Keyturn did not set, in place of one that it retires or beside it.
type Foreign struct {
	Kind ForeignKind
	// Text says in sentences what was found, and how an operator removes it; empty for NoForeign.
	Text string
}

// ForeignKind says what is known of such a password.
type ForeignKind uint8

// The kinds.
const (
	NoForeign          ForeignKind = iota
	ForeignFound                   // there is one
	ForeignNotCompared             // there is one, in a form that is not compared with the one to be retired
	ForeignShared                  // there is one, which may be another application's: it is never removed
	ForeignUnknown                 // whether there is one is not known, so it is not removed
)
