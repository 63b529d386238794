package users

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/ram"
)

// TestPolicyTagLimit verifies that a policy has at most 20 tags.
func TestPolicyTagLimit(t *testing.T) {
	t.Parallel()
	tags := map[string]string{}
	for i := range MaxTags {
		tags[fmt.Sprint(i)] = ""
	}
	if _, err := NewPolicy("1", "p", "{}", "", tags, time.Unix(0, 0)); err != nil {
		t.Error(err)
	}
	tags["one more"] = ""
	if _, err := NewPolicy("1", "p", "{}", "", tags, time.Unix(0, 0)); code(err) != ram.CodePolicyTagLimit {
		t.Errorf("21 tags: %v", err)
	}
}
