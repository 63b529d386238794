package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/egress"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

// maxDetail is how many bytes of one parameter are recorded. Of a longer one its beginning and its
// digest are.
const maxDetail = 4096

// configParam is the parameter with the configuration of a target. It may hold tokens, so the trail
// has the addresses in it only.
const configParam = "Config"

// inRecord reports whether a parameter has a member of its own in the record of a call.
func (c *Call) inRecord(name string) bool {
	return name == "VersionId" || name == "VersionStage" || name == "SecretName" && c.resource.secret != ""
}

// told are the parameters of a change, as they were given. A parameter that holds a value is left
// out, and a document that is none of its sort is told by its digest.
func (c *Call) told() audit.Details {
	var details audit.Details
	known := c.op.Params()
	for _, p := range c.Params {
		name, _, _ := strings.Cut(p.Name, ".")
		i := slices.IndexFunc(known, func(k wire.Param) bool { return k.Name == name })
		if i < 0 || known[i].Secret || c.inRecord(p.Name) {
			continue
		}
		if name == configParam {
			details = append(details, audit.Detail{Name: "addresses", Value: strings.Join(c.addresses(p.Value), ",")})
			continue
		}
		sound := c.isSound(name, p.Value)
		if sound {
			details = append(details, audit.Detail{Name: p.Name, Value: p.Value[:min(len(p.Value), maxDetail)]})
		}
		if !sound || len(p.Value) > maxDetail {
			sum := sha256.Sum256([]byte(p.Value))
			details = append(details, audit.Detail{Name: p.Name + ".sha256", Value: hex.EncodeToString(sum[:])})
		}
	}
	return details
}

// isSound reports whether a document is of the sort that its parameter takes. One that is not will be
// refused; it may be anything, a secret value included, so the trail has its digest only.
func (c *Call) isSound(parameter, text string) bool {
	var err error
	switch parameter {
	case "Policy":
		_, err = policy.ParseSecret(text, c.Account())
	case "PolicyDocument":
		_, err = policy.ParseIdentity(text)
	case "ExtendedConfig": // a value given in its place by mistake has the same form: a JSON object
		return false
	}
	return err == nil
}

// addresses are those in the configuration that a call gives to a target.
func (c *Call) addresses(config string) []string {
	kind, given := c.Params.Get("Kind")
	if !given {
		name, _ := c.Params.Get("TargetName")
		if t, ok, err := c.Snapshot.Target(c.Account(), name); err == nil && ok {
			kind = t.Kind
		}
	}
	return c.Kinds[kind].AddressesOf([]byte(config))
}

// opSend is the operation of the record that says where a credential went.
const opSend = "SendCredential"

// sender connects to a target, and records where its credentials go before anything is sent there.
type sender struct {
	call     *Call
	target   store.Target
	admin    string   // version of the administrator's secret; empty without one
	versions []string // of the call's secret that may be sent
	dial     egress.DialFunc

	mu   sync.Mutex
	seen map[string]bool // addresses that are recorded; guarded by mu
}

// DialContext connects to address, after its record.
func (s *sender) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if err := s.record(ctx, address); err != nil {
		return nil, err
	}
	return s.dial(ctx, network, address)
}

// record writes one record for each address. What cannot be recorded is not sent.
func (s *sender) record(ctx context.Context, address string) error {
	s.mu.Lock()
	known := s.seen[address]
	s.seen[address] = true
	s.mu.Unlock()
	if known || s.call.gate == nil {
		return nil
	}
	r := recordOf(s.call, audit.Call, audit.Allow, "ok")
	during := r.Operation
	r.Operation, r.Action = opSend, ""
	r.Details = audit.Details{
		{Name: "during", Value: during}, {Name: "address", Value: address}, {Name: "target", Value: s.target.Name},
		{Name: "target_id", Value: s.target.ID}, {Name: "kind", Value: s.target.Kind},
	}
	if s.target.AdminSecret != "" {
		r.Details = append(r.Details,
			audit.Detail{Name: "admin_secret", Value: s.target.AdminSecret}, audit.Detail{Name: "admin_version", Value: s.admin})
	}
	if len(s.versions) > 0 {
		r.Details = append(r.Details, audit.Detail{Name: "versions", Value: strings.Join(s.versions, ",")})
	}
	err := s.call.gate.append(ctx, s.call, r, false)
	if err != nil {
		s.mu.Lock()
		delete(s.seen, address)
		s.mu.Unlock()
	}
	return err
}

// settings are those with which a target is opened.
func (s *sender) settings(admin target.Credential) target.Settings {
	out := target.Settings{Name: s.target.Name, Config: s.target.Config, Admin: admin, Dial: s.call.Dial}
	s.dial, s.seen = out.Dialer(), map[string]bool{}
	out.Dial, out.Sending = s.DialContext, s.record
	return out
}

// answered records which secrets a call reported, with their versions.
func (c *Call) answered(changes []kms.SecretChange) {
	for _, change := range changes {
		c.details = append(c.details, audit.Detail{Name: change.SecretName, Value: change.VersionID})
	}
}
