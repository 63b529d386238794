package secret

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
)

const maxTagText = 128

func checkTags(tags []kms.Tag) error {
	keys := map[string]bool{}
	for _, t := range tags {
		if err := CheckTagKey(t.TagKey); err != nil {
			return err
		}
		if len(t.TagValue) > maxTagText || !isTagText(t.TagValue) {
			return fault.Parameter("Tags", `a tag value has at most 128 letters, digits and / \ _ - . + = : @`)
		}
		keys[t.TagKey] = true
	}
	if len(keys) > MaxTags {
		return fault.New(fault.LimitExceeded, "A resource has at most %d tags.", MaxTags)
	}
	return nil
}

// CheckTagKey refuses a key that no tag can have.
func CheckTagKey(key string) error {
	switch {
	case key == "" || len(key) > maxTagText || !isTagText(key):
		return fault.Parameter("Tags", `a tag key has 1 to 128 letters, digits and / \ _ - . + = : @`)
	case strings.HasPrefix(key, "aliyun") || strings.HasPrefix(key, "acs:"):
		return fault.Parameter("Tags", "a tag key does not begin with aliyun or acs:.")
	}
	return nil
}

func isTagText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(`/\_-.+=:@`, r)
	})
}

// Tag adds tags; an existing key gets the new value. Tags may change in the deletion window too.
func (s Secret) Tag(tags []kms.Tag, now time.Time) (Secret, error) {
	if err := checkTags(tags); err != nil {
		return s, err
	}
	s = s.clone().touched(now)
	if s.Tags == nil {
		s.Tags = map[string]string{}
	}
	for _, t := range tags {
		s.Tags[t.TagKey] = t.TagValue
	}
	if len(s.Tags) > MaxTags {
		return s, fault.New(fault.LimitExceeded,
			"Secret %q would have %d tags; a resource has at most %d.", s.Name, len(s.Tags), MaxTags)
	}
	return s, nil
}

// Untag removes tags, all of them when all is set; keys that are not there are passed over.
func (s Secret) Untag(keys []string, all bool, now time.Time) Secret {
	s = s.clone().touched(now)
	if all {
		s.Tags = nil
	}
	for _, key := range keys {
		delete(s.Tags, key)
	}
	return s
}

// SortedTags are the tags by key. Never nil.
func (s Secret) SortedTags() []kms.Tag {
	list := []kms.Tag{}
	for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
		list = append(list, kms.Tag{TagKey: key, TagValue: s.Tags[key]})
	}
	return list
}
