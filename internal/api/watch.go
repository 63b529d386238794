package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

// watchSecrets waits until a secret differs from what the caller knows of it. The request says what
// the caller knows, so a call to any node, at any later time, continues where another one ended. A
// caller who may not read a secret learns that, and nothing else about the secret.
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
	for due, first := items, true; ; due, first = among(items, f.Changed()), false {
		if out.Changes, err = c.changed(ctx, in.Consumer, due, first); err != nil || len(out.Changes) > 0 {
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

// leave notes that an instance has ended, for the secrets that the caller may read: only such a
// caller can hold a value.
func (c *Call) leave(ctx context.Context, names []string, instance string) error {
	if err := c.refresh(ctx); err != nil {
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

// refresh continues the call on a new snapshot, with the policies that the caller has there.
func (c *Call) refresh(ctx context.Context) (err error) {
	c.Snapshot = store.Snapshot(ctx, c.DB)
	c.identity, err = loadIdentity(c.Snapshot, c.Principal, "")
	return err
}

// watchedItem is one secret of a call.
type watchedItem struct {
	kms.WatchedSecret
	name  string // empty for an ARN that names nothing here
	place int    // of the name, among the names of the call
}

// among returns the items whose secrets are at these places.
func among(items []watchedItem, places []int) []watchedItem {
	var list []watchedItem
	for _, item := range items {
		if slices.Contains(places, item.place) {
			list = append(list, item)
		}
	}
	return list
}

// watched checks the items of a call, and returns them with the names of their secrets. Two items
// may be of one secret, for example by its name and by its ARN.
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
		case !isSecretName(name):
			return nil, nil, fault.Parameter("Secret", "item %d: a secret name has %s", i+1, secretNameRule)
		case badVersion(w.VersionID) || badVersion(w.OldestVersionID):
			return nil, nil, fault.Parameter("Secret",
				"item %d: a version has at most 64 letters, digits and _ / + = . @ -", i+1)
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

// changed reads some of the secrets in a new snapshot, and returns the ones that differ from what
// the caller knows. With note, it notes what the instance reports of them.
func (c *Call) changed(
	ctx context.Context, instance string, items []watchedItem, note bool,
) ([]kms.SecretChange, error) {
	c.At = c.Now().UTC()
	if err := c.refresh(ctx); err != nil {
		return nil, err
	}
	list := []kms.SecretChange{}
	for _, item := range items {
		change, rotated, err := c.state(item.name)
		if err != nil {
			return nil, err
		}
		if note && instance != "" && item.VersionID != "" && change.State == kms.StateCurrent {
			u := consumption{secret: item.name, instance: instance, version: item.VersionID, rotated: rotated}
			if item.OldestVersionID != item.VersionID {
				u.oldest = item.OldestVersionID
			}
			c.noteUse(u)
		}
		if change.Revision != item.Revision {
			change.SecretName = item.SecretName // as the caller spells it
			list = append(list, change)
		}
	}
	return list, nil
}

// state returns what a caller may know of a secret at present.
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
	d, err := c.asking(actionGetSecretValue, c.secretResource(name)).decide(c.Snapshot)
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
		SecretName:        s.Name,
		State:             kms.StateCurrent,
		VersionID:         s.Stages[secret.Current],
		PreviousVersionID: s.Stages[secret.Previous],
		PendingVersionID:  s.Stages[secret.Pending],
		NextRotationDate:  s.Rotation.Next,
	}
}

// revision identifies what a reader of the labels would notice. A secret that was created anew
// under an old name has another revision.
func revision(change kms.SecretChange, created time.Time) string {
	text := fmt.Sprintf("%s\x00%s\x00%s\x00%d",
		change.State, change.VersionID, change.PreviousVersionID, created.UnixNano())
	digest := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(digest[:12])
}
