package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// powerTags lists the tags that make a user privileged.
var powerTags = []struct{ tag, permits string }{
	{"administrator", "may change every user"},
	{"policymaker", "may change policies and parameters, such as shovels"},
}

// Standing reports the standing of a user by its tags.
func (b *broker) Standing(ctx context.Context, account string) (target.Standing, error) {
	what := fmt.Sprintf("find out what %s is at %s", fault.Quoted(account), b.name)
	// RabbitMQ compares names by their bytes.
	s := target.Standing{Administrator: account == b.admin.Account}
	u, err := b.user(ctx, what, target.Credential{Account: account})
	switch {
	case errors.Is(err, errNoUser):
		return s, nil
	case err != nil:
		advice := "the administrator must be able to read users: " + b.toRead()
		return target.Standing{}, target.WithAdvice(err, advice, b.admin.Secret)
	}
	tags, err := u.tags()
	if err != nil {
		return target.Standing{}, target.Denied.Errorf("%s: %v", what, err)
	}
	for _, p := range powerTags {
		if slices.Contains(tags, p.tag) {
			s.Privileged = fmt.Sprintf("has the tag %s and %s", p.tag, p.permits)
			return s, nil
		}
	}
	return s, nil
}

// Test reads the administrator's own user, which only an administrator may. The administrator needs
// no permissions in a virtual host, so no session is opened. Another backend may know it.
func (b *broker) Test(ctx context.Context) error {
	_, err := b.user(ctx, "read the administrator at "+b.name, b.admin)
	if errors.Is(err, errNoUser) {
		return nil
	}
	return target.WithAdvice(err, b.toRead(), b.admin.Secret)
}

// tags reads the list, or the text with commas that RabbitMQ before version 3.9 sends.
func (u user) tags() ([]string, error) {
	var list []string
	if json.Unmarshal(u.Tags, &list) == nil {
		return list, nil
	}
	var text string
	if err := json.Unmarshal(u.Tags, &text); err != nil {
		return nil, errors.New("the user's tags are neither a list nor a text")
	}
	for tag := range strings.SplitSeq(text, ",") {
		list = append(list, strings.TrimSpace(tag))
	}
	return list, nil
}

var (
	_ target.Guarded = (*broker)(nil)
	_ target.Tester  = (*broker)(nil)
)
