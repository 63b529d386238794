package target

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Role says how an endpoint learns of a change.
type Role string

// The roles.
const (
	// Writer knows of a change as soon as it is made.
	Writer Role = "writer"
	// Replica learns of a change later: a standby, a replica, a second directory server. Until its
	// lag is over, what it answers says nothing of the credential.
	Replica Role = "replica"
	// Pooler stands before a server and may answer logins from a list or a cache of its own.
	Pooler Role = "pooler"
)

// Bounds of the lag of a replica.
const (
	DefaultLag = 10 * time.Second
	MaxLag     = 10 * time.Minute
)

// Endpoint is an address where a new credential must work.
type Endpoint struct {
	Address string
	Role    Role
	// Lag is how long a replica may need to learn of a change; zero for other roles.
	Lag time.Duration
}

// Copied is a target with endpoints that learn of a change later, which [Target.Verify] does not
// ask.
type Copied interface {
	// VerifyCopies opens a new connection with the credential at every replica of the configuration,
	// as Verify does at the other endpoints, and with the same errors. It logs in at most once at
	// each. The engine repeats it several times in a second until it succeeds or the lag is over, so
	// it must not log in at a writer.
	VerifyCopies(ctx context.Context, c Credential) error
	// Lag returns how long a replica may need to learn of a change; zero without a replica.
	Lag() time.Duration
}

// Endpoints in a configuration are strings, or objects with address, role and lag.
type endpointJSON struct {
	Address string `json:"address"`
	Role    Role   `json:"role,omitempty"`
	Lag     string `json:"lag,omitempty"`
}

// UnmarshalJSON reads "host:port" or {"address": "host:port", "role": "replica", "lag": "10s"}.
func (e *Endpoint) UnmarshalJSON(data []byte) error {
	var address string
	if json.Unmarshal(data, &address) == nil {
		*e = Endpoint{Address: address, Role: Writer}
		return nil
	}
	if len(data) == 0 || data[0] != '{' {
		return errors.New(`an endpoint must be an address, or an object with the members address, role and lag`)
	}
	var in endpointJSON
	if err := Decode(data, &in); err != nil {
		return err
	}
	if in.Role == "" {
		in.Role = Writer
	}
	*e = Endpoint{Address: in.Address, Role: in.Role}
	if in.Role != Writer && in.Role != Replica && in.Role != Pooler {
		return fmt.Errorf("role %q must be writer, replica or pooler", in.Role)
	}
	if in.Role != Replica {
		if in.Lag != "" {
			return errors.New("lag is for the role replica alone")
		}
		return nil
	}
	e.Lag = DefaultLag
	if in.Lag != "" {
		lag, err := time.ParseDuration(in.Lag)
		if err != nil || lag <= 0 || lag > MaxLag {
			return fmt.Errorf("lag %q must be a duration of up to %s, such as 10s", in.Lag, MaxLag)
		}
		e.Lag = lag
	}
	return nil
}

// MarshalJSON writes the form that UnmarshalJSON reads.
func (e Endpoint) MarshalJSON() ([]byte, error) {
	if e.Role == Writer || e.Role == "" {
		return json.Marshal(e.Address)
	}
	out := endpointJSON{Address: e.Address, Role: e.Role}
	if e.Lag > 0 {
		out.Lag = e.Lag.String()
	}
	return json.Marshal(out)
}

// EndpointList is the setting verify of a kind.
type EndpointList []Endpoint

// WritersAt returns a writer at each address, without duplicates.
func WritersAt(addresses []string) EndpointList {
	var list EndpointList
	for _, a := range addresses {
		if a != "" && !slices.Contains(list.Addresses(), a) {
			list = append(list, Endpoint{Address: a, Role: Writer})
		}
	}
	return list
}

// Addresses returns the address of each endpoint.
func (l EndpointList) Addresses() []string {
	out := make([]string, len(l))
	for i, e := range l {
		out[i] = e.Address
	}
	return out
}

// Deciding returns the endpoints whose answer decides about a credential: all but the replicas.
func (l EndpointList) Deciding() EndpointList { return l.only(false) }

// Replicas returns the endpoints that learn of a change later.
func (l EndpointList) Replicas() EndpointList { return l.only(true) }

func (l EndpointList) only(replicas bool) EndpointList {
	var out EndpointList
	for _, e := range l {
		if (e.Role == Replica) == replicas {
			out = append(out, e)
		}
	}
	return out
}

// Lag returns the longest lag of the replicas; zero without one.
func (l EndpointList) Lag() (lag time.Duration) {
	for _, e := range l {
		lag = max(lag, e.Lag)
	}
	return lag
}

// Late says which replicas refuse a new credential after a change, and for how long: a sentence to
// follow the one of a [Windower], which is about the old one; empty without a replica.
func (l EndpointList) Late() string {
	var late []string
	for _, e := range l.Replicas() {
		late = append(late, fmt.Sprintf("replica %s (lag %s)", e.Address, e.Lag))
	}
	until := "until it has caught up."
	switch len(late) {
	case 0:
		return ""
	case 1:
	default:
		until = "until each has caught up."
	}
	return " The new one is refused at " + strings.Join(late, ", ") + " " + until
}
