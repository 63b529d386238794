package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
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

// A record always has the whole of a detail that is at most maxShort bytes long. Of a longer one it
// has the SHA-256, and as much of the beginning as there is room for, at most maxDetail bytes.
const (
	maxShort  = 512
	maxDetail = 4096
)

// configParam is the parameter with the configuration of a target. It may hold tokens, so the trail
// has only the addresses in it.
const configParam = "Config"

// inRecord reports whether a parameter has a member of its own in the record of a call.
func (c *Call) inRecord(name string) bool {
	return name == "VersionId" || name == "VersionStage" || name == "SecretName" && c.resource.secret != ""
}

// parameterDetails returns the parameters of a change, as the caller gave them. It omits parameters
// that hold secret values. Of a document that is not of the expected sort it has the digest alone.
func (c *Call) parameterDetails() audit.Details {
	var facts []fact
	known := c.op.Params()
	for _, p := range c.Params {
		name, _, isList := strings.Cut(p.Name, ".")
		i := slices.IndexFunc(known, func(k wire.Param) bool { return k.Name == name })
		if i < 0 || known[i].Secret || c.inRecord(p.Name) {
			continue
		}
		if name == configParam {
			addresses := strings.Join(c.addresses(p.Value), ",")
			facts = append(facts, fact{name: "addresses", parts: pairs("addresses", addresses)})
			continue
		}
		part := audit.Detail{Name: p.Name, Value: p.Value}
		if at := slices.IndexFunc(facts, func(f fact) bool { return f.name == name }); isList && at >= 0 {
			facts[at].parts = append(facts[at].parts, part)
			continue
		}
		facts = append(facts, fact{
			name:   name,
			parts:  []audit.Detail{part},
			list:   isList,
			hidden: !c.isSound(name, p.Value),
		})
	}
	return detailsOf(facts)
}

// several returns the resources of a call that reads more than one.
func several(resources []resource) audit.Details {
	if len(resources) < 2 {
		return nil
	}
	f := fact{name: "resources", list: true}
	for i, r := range resources {
		f.parts = append(f.parts, audit.Detail{Name: fmt.Sprint("resources.", i+1), Value: r.arn})
	}
	return detailsOf([]fact{f})
}

// fact is one member of the details of a record, or several of a list.
type fact struct {
	name   string
	parts  []audit.Detail
	list   bool
	hidden bool // the record has the digest alone
}

func (f fact) size() (n int) {
	for _, p := range f.parts {
		n += len(p.Name) + len(p.Value)
	}
	return n
}

// isShort reports whether the record has the whole fact in any case.
func (f fact) isShort() bool { return !f.hidden && f.size() <= len(f.name)+maxShort }

// digest returns the members that stand for a fact which the record does not have whole: the
// SHA-256 of the value, or of a list the number of its members and the SHA-256 of all, each as
// name=value and a newline.
func (f fact) digest() audit.Details {
	h := sha256.New()
	for _, p := range f.parts {
		if f.list {
			fmt.Fprintf(h, "%s=%s\n", p.Name, p.Value)
		} else {
			_, _ = io.WriteString(h, p.Value) // a hash takes everything
		}
	}
	sum := audit.Detail{Name: f.name + ".sha256", Value: hex.EncodeToString(h.Sum(nil))}
	if !f.list {
		return audit.Details{sum}
	}
	return audit.Details{{Name: f.name + ".count", Value: strconv.Itoa(len(f.parts))}, sum}
}

// beginning returns as much of a long fact as fits into n bytes. whole reports whether that is all
// of it.
func (f fact) beginning(n int) (out audit.Details, whole bool) {
	if f.hidden {
		return nil, false
	}
	if !f.list {
		v := f.parts[0].Value
		keep := max(0, min(len(v), n-len(f.name)))
		return audit.Details{{Name: f.parts[0].Name, Value: v[:keep]}}, keep == len(v)
	}
	for _, p := range f.parts {
		if n -= len(p.Name) + len(p.Value); n < 0 {
			return out, false
		}
		out = append(out, p)
	}
	return out, true
}

// detailsOf returns the details of a record. However long some facts are, all short ones and the
// digests of the long ones fit: the long ones share the rest of the room for their beginnings.
func detailsOf(facts []fact) (details audit.Details) {
	room, long := audit.MaxDetails, 0
	for _, f := range facts {
		if f.isShort() {
			room -= f.size()
			continue
		}
		long++
		for _, d := range f.digest() {
			room -= len(d.Name) + len(d.Value)
		}
	}
	for _, f := range facts {
		if f.isShort() {
			details = append(details, f.parts...)
			continue
		}
		part, whole := f.beginning(min(len(f.name)+maxDetail, max(0, room/long)))
		details = append(details, part...)
		if !whole {
			details = append(details, f.digest()...)
		}
		room -= fact{parts: part}.size()
		long--
	}
	return details
}

// isSound reports whether a document is of the sort that its parameter takes. Any other one will be
// refused. It may be anything, a secret value included, so the trail has its digest alone.
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

// addresses returns the addresses in the configuration that a call gives to a target.
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

// pairs returns details from names and values.
func pairs(texts ...string) (list audit.Details) {
	for i := 0; i < len(texts); i += 2 {
		list = append(list, audit.Detail{Name: texts[i], Value: texts[i+1]})
	}
	return list
}

// sender connects to a target, and records where its credentials go before anything is sent there.
type sender struct {
	call     *Call
	target   store.Target
	admin    string   // version of the administrator's secret; empty without one
	versions []string // of the call's secret that may be sent
	login    target.Login
	consents []string // of the secret, which the target follows
	// certificate is the version of the secret with the client certificate; empty without one.
	certificate string
	// unused says that the target is asked nothing: it is not connected to, and nothing is sent.
	unused bool
	dial   egress.DialFunc

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

// record writes one record for each address. It fails when the record cannot be written, or the
// target is not to be used, and nothing may be sent then.
func (s *sender) record(ctx context.Context, address string) error {
	if s.unused {
		return fmt.Errorf("target %q was opened to be asked nothing", s.target.Name)
	}
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
	t := s.target
	r.Details = pairs("during", during, "address", address, "target", t.Name, "target_id", t.ID, "kind", t.Kind)
	if t.AdminSecret != "" {
		r.Details = append(r.Details, pairs("admin_secret", t.AdminSecret, "admin_version", s.admin)...)
	}
	if s.certificate != "" {
		r.Details = append(r.Details,
			pairs("certificate_secret", s.login.CertificateSecret, "certificate_version", s.certificate)...)
	}
	if len(s.versions) > 0 {
		r.Details = append(r.Details, pairs("versions", strings.Join(s.versions, ","))...)
	}
	err := s.call.gate.append(ctx, s.call, r, false)
	if err != nil {
		s.mu.Lock()
		delete(s.seen, address)
		s.mu.Unlock()
	}
	return err
}

// settings returns the settings with which a target is opened.
func (s *sender) settings(admin target.Credential) target.Settings {
	out := target.Settings{
		Name:    s.target.Name,
		Config:  s.target.Config,
		Admin:   admin,
		Login:   s.login,
		Consent: s.consents,
		Dial:    s.call.Dial,
	}
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
