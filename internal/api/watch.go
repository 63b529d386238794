package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

// maxWait is the longest time that a caller may wait for a change.
const maxWait = 50 * time.Second

// watchSecrets waits until a secret is not any more as the caller knows it. What each secret is compared with is in the request,
// so a call to any node, after any time, goes on where another ended. Whoever may not read a secret is told so, and nothing else
// of it.
func watchSecrets(ctx context.Context, c *Call, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	names, err := c.watched(in)
	if err != nil {
		return nil, err
	}
	out := &kms.WatchSecretsResponse{Changes: []kms.SecretChange{}}
	if in.Leaving {
		for _, name := range names {
			c.noteLeave(name, in.Consumer)
		}
		return out, nil
	}
	f := c.DB.Follow(c.Account(), names)
	defer f.Close()
	wait, cancel := context.WithTimeout(ctx, time.Duration(in.WaitSeconds)*time.Second)
	defer cancel()
	all := make([]int, len(names))
	for i := range all {
		all[i] = i
	}
	for look, first := all, true; ; look, first = f.Changed(), false {
		if out.Changes, err = c.changed(ctx, in, look, first); err != nil || len(out.Changes) > 0 {
			return out, err
		}
		select {
		case <-f.Signal():
		case <-wait.Done():
			return out, nil
		case <-c.gone:
			return out, nil
		case <-c.Stopping:
			return out, nil
		}
	}
}

// watched returns the names of the secrets, which may be given as ARNs.
func (c *Call) watched(in *kms.WatchSecretsRequest) ([]string, error) {
	if in.Leaving && in.Consumer == "" {
		return nil, &fault.Error{Kind: fault.Missing, Param: "Consumer", Msg: "Leaving says which instance ends."}
	}
	names, seen := make([]string, len(in.Secrets)), make(map[string]bool, len(in.Secrets))
	for i := range in.Secrets {
		w := &in.Secrets[i]
		name, err := c.secretName(w.SecretName)
		if err != nil {
			return nil, err
		}
		switch {
		case len(name) > 192 || !wire.IsName(name):
			return nil, fault.Parameter("Secret", "item %d: a secret name has 1 to 192 letters, digits and _ / + = . @ -", i+1)
		case seen[name]:
			return nil, fault.Parameter("Secret", "item %d names a secret that another item names", i+1)
		case badVersion(w.VersionID) || badVersion(w.OldestVersionID):
			return nil, fault.Parameter("Secret", "item %d: a version has at most 64 letters, digits and _ / + = . @ -", i+1)
		}
		names[i], seen[name] = name, true
	}
	return names, nil
}

func badVersion(id string) bool { return id != "" && (len(id) > 64 || !wire.IsName(id)) }

// changed looks at some of the secrets in a new snapshot, and returns those that are not as the caller knows them. With note, what
// the caller says of them is noted.
func (c *Call) changed(ctx context.Context, in *kms.WatchSecretsRequest, look []int, note bool) ([]kms.SecretChange, error) {
	c.Snapshot = store.Snapshot(ctx, c.DB)
	c.At = c.Now().UTC()
	var err error
	if c.identity, err = loadIdentity(c.Snapshot, c.Principal, ""); err != nil {
		return nil, err
	}
	list := []kms.SecretChange{}
	for _, i := range look {
		w := in.Secrets[i]
		change, rotated, err := c.state(w.SecretName)
		if err != nil {
			return nil, err
		}
		if note && in.Consumer != "" && w.VersionID != "" && change.State == kms.StateCurrent {
			oldest := w.OldestVersionID
			if oldest == w.VersionID {
				oldest = ""
			}
			c.noteUse(consumption{secret: change.SecretName, instance: in.Consumer, version: w.VersionID, oldest: oldest, rotated: rotated})
		}
		if change.Revision != w.Revision {
			change.SecretName = w.SecretName // as the caller spells it
			list = append(list, change)
		}
	}
	return list, nil
}

// state is what a caller may know of a secret at present.
func (c *Call) state(nameOrARN string) (change kms.SecretChange, rotated bool, err error) {
	name, err := c.secretName(nameOrARN)
	if err != nil {
		return change, false, err
	}
	change = kms.SecretChange{SecretName: name, State: kms.StateDenied}
	q := question{
		principal: c.Principal, identity: c.identity, action: "kms:GetSecretValue", resource: c.secretResource(name),
		context: policy.Context{Now: c.At, SourceIP: c.Source, SecureTransport: c.Secure},
	}
	d, err := q.decide(c.Snapshot)
	if err != nil {
		return change, false, err
	}
	if d.Allowed {
		s, ok, err := c.Snapshot.Secret(c.Account(), name, c.At)
		if err != nil {
			return change, false, err
		}
		if change.State = kms.StateAbsent; ok && !s.Deleting() {
			change = current(s)
			rotated = s.Rotated()
			change.Revision = revision(change, s.CreatedAt)
			return change, rotated, nil
		}
	}
	change.Revision = revision(change, time.Time{})
	return change, false, nil
}

func current(s secret.Secret) kms.SecretChange {
	return kms.SecretChange{
		SecretName: s.Name, State: kms.StateCurrent, VersionID: s.Stages[secret.Current], PreviousVersionID: s.Stages[secret.Previous],
		PendingVersionID: s.Stages[secret.Pending], NextRotationDate: s.Rotation.Next,
	}
}

// revision names what a reader of the labels would notice. A secret that was made anew under its old name is another.
func revision(change kms.SecretChange, created time.Time) string {
	text := strings.Join([]string{change.State, change.VersionID, change.PreviousVersionID, fmt.Sprint(created.UnixNano())}, "\x00")
	digest := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(digest[:12])
}
