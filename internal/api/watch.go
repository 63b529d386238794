package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

// watchSecrets waits until a secret is not any more as the caller knows it. What each secret is compared with is in the request,
// so a call to any node, after any time, goes on where another ended. Whoever may not read a secret is told so, and nothing else
// of it.
func watchSecrets(ctx context.Context, c *Call, in *kms.WatchSecretsRequest) (*kms.WatchSecretsResponse, error) {
	items, names, err := c.watched(in)
	if err != nil {
		return nil, err
	}
	out := &kms.WatchSecretsResponse{Changes: []kms.SecretChange{}}
	if in.Leaving {
		return out, c.leave(ctx, names, in.Consumer)
	}
	f := c.DB.Follow(c.Account(), names)
	defer f.Close()
	wait, cancel := context.WithTimeout(ctx, time.Duration(in.WaitSeconds)*time.Second)
	defer cancel()
	for look, first := items, true; ; look, first = among(items, f.Changed()), false {
		if out.Changes, err = c.changed(ctx, in.Consumer, look, first); err != nil || len(out.Changes) > 0 {
			c.answered(out.Changes)
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

// leave notes that an instance has ended, for those of the secrets that the caller may read: nobody else can hold a value.
func (c *Call) leave(ctx context.Context, names []string, instance string) error {
	c.Snapshot = store.Snapshot(ctx, c.DB)
	var err error
	if c.identity, err = loadIdentity(c.Snapshot, c.Principal, ""); err != nil {
		return err
	}
	for _, name := range names {
		change, _, err := c.state(name)
		if err != nil {
			return err
		}
		if change.State == kms.StateCurrent {
			c.noteLeave(name, instance)
		}
	}
	return nil
}

// watchedItem is one secret of a call.
type watchedItem struct {
	kms.WatchedSecret
	name  string // empty for an ARN that names nothing here
	place int    // of the name, among those of the call
}

// among are the items whose secrets are at these places.
func among(items []watchedItem, places []int) []watchedItem {
	var list []watchedItem
	for _, item := range items {
		if slices.Contains(places, item.place) {
			list = append(list, item)
		}
	}
	return list
}

// watched checks the items of a call, and returns them with the names of their secrets. Two may be of one secret, by its name and
// by its ARN, say.
func (c *Call) watched(in *kms.WatchSecretsRequest) (items []watchedItem, names []string, err error) {
	if in.Leaving && in.Consumer == "" {
		return nil, nil, &fault.Error{Kind: fault.Missing, Param: "Consumer", Msg: "Leaving says which instance ends."}
	}
	places := make(map[string]int, len(in.Secrets))
	for i, w := range in.Secrets {
		item := watchedItem{WatchedSecret: w, place: -1}
		name, err := c.secretName(w.SecretName)
		switch {
		case fault.KindOf(err) == fault.NotFound: // of another region or account
		case err != nil:
			return nil, nil, err
		case len(name) > 192 || !wire.IsName(name):
			return nil, nil, fault.Parameter("Secret", "item %d: a secret name has 1 to 192 letters, digits and _ / + = . @ -", i+1)
		case badVersion(w.VersionID) || badVersion(w.OldestVersionID):
			return nil, nil, fault.Parameter("Secret", "item %d: a version has at most 64 letters, digits and _ / + = . @ -", i+1)
		default:
			place, known := places[name]
			if !known {
				place, names = len(names), append(names, name)
				places[name] = place
			}
			item.name, item.place = name, place
		}
		items = append(items, item)
	}
	return items, names, nil
}

func badVersion(id string) bool { return id != "" && (len(id) > 64 || !wire.IsName(id)) }

// changed looks at some of the secrets in a new snapshot, and returns those that are not as the caller knows them. With note, what
// the instance says of them is noted.
func (c *Call) changed(ctx context.Context, instance string, look []watchedItem, note bool) ([]kms.SecretChange, error) {
	c.Snapshot = store.Snapshot(ctx, c.DB)
	c.At = c.Now().UTC()
	var err error
	if c.identity, err = loadIdentity(c.Snapshot, c.Principal, ""); err != nil {
		return nil, err
	}
	list := []kms.SecretChange{}
	for _, item := range look {
		change, rotated, err := c.state(item.name)
		if err != nil {
			return nil, err
		}
		if note && instance != "" && item.VersionID != "" && change.State == kms.StateCurrent {
			oldest := item.OldestVersionID
			if oldest == item.VersionID {
				oldest = ""
			}
			c.noteUse(consumption{secret: item.name, instance: instance, version: item.VersionID, oldest: oldest, rotated: rotated})
		}
		if change.Revision != item.Revision {
			change.SecretName = item.SecretName // as the caller spells it
			list = append(list, change)
		}
	}
	return list, nil
}

// state is what a caller may know of a secret at present.
func (c *Call) state(name string) (change kms.SecretChange, rotated bool, err error) {
	change.State = kms.StateAbsent
	if name != "" {
		change, rotated, err = c.judged(name)
	}
	if change.Revision == "" {
		change.Revision = revision(change, time.Time{})
	}
	return change, rotated, err
}

func (c *Call) judged(name string) (change kms.SecretChange, rotated bool, err error) {
	q := c.asking("kms:GetSecretValue", c.secretResource(name))
	d, err := q.decide(c.Snapshot)
	if err != nil || !d.Allowed {
		return kms.SecretChange{State: kms.StateDenied}, false, err
	}
	s, ok, err := c.Snapshot.Secret(c.Account(), name, c.At)
	if err != nil || !ok || s.Deleting() {
		return kms.SecretChange{State: kms.StateAbsent}, false, err
	}
	change = current(s)
	change.Revision = revision(change, s.CreatedAt)
	return change, s.IsRotated(), nil
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
