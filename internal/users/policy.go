package users

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/ram"
)

// RotateOldest makes room for a version by deleting the oldest that is not the default.
const RotateOldest = ram.RotateOldest

// Policy is a document in up to five versions, one of which is in effect.
type Policy struct {
	Account     string            `json:"account"`
	Type        string            `json:"type"`
	Name        string            `json:"name"`
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	CreatedAt   time.Time         `json:"created_at"`
	UpdatedAt   time.Time         `json:"updated_at"`
	Versions    []Version         `json:"versions,omitempty"`
	Default     string            `json:"default"`
	// Last is the number of the newest version there ever was, so that no ID is used twice.
	Last int `json:"last"`
	// Users and Groups are how many it is attached to.
	Users  int `json:"users,omitempty"`
	Groups int `json:"groups,omitempty"`
}

// Version is one version of a document. It never changes.
type Version struct {
	ID        string    `json:"id"`
	Document  string    `json:"document"`
	CreatedAt time.Time `json:"created_at"`
}

// NewPolicy makes a custom policy with its first version. The document has been read by package
// policy already.
func NewPolicy(account, name, document, description string, tags map[string]string, now time.Time) (Policy, error) {
	if err := CheckPolicyName("PolicyName", name); err != nil {
		return Policy{}, err
	}
	for key, value := range tags {
		if key == "" || len(key) > 128 || len(value) > 128 {
			return Policy{}, fault.Parameter("Tag", "a key has 1 to 128 bytes, a value at most 128.")
		}
	}
	p := Policy{
		Account:   account,
		Type:      Custom,
		Name:      name,
		Tags:      maps.Clone(tags),
		CreatedAt: now,
	}
	p, err := p.Describe("Description", description, now)
	if err != nil {
		return p, err
	}
	p, _, err = p.AddVersion(document, true, "", now)
	return p, err
}

// Describe changes the description.
func (p Policy) Describe(parameter, description string, now time.Time) (Policy, error) {
	if err := checkText(parameter, description, 1024); err != nil {
		return p, err
	}
	p.Description, p.UpdatedAt = description, now
	return p, nil
}

// HasTags reports whether the policy has all these tags; an empty value matches any.
func (p Policy) HasTags(want map[string]string) bool {
	for key, value := range want {
		if got, ok := p.Tags[key]; !ok || value != "" && got != value {
			return false
		}
	}
	return true
}

// AddVersion adds a version. A sixth is refused, unless the strategy says to delete the oldest that
// is not the default.
func (p Policy) AddVersion(document string, makeDefault bool, strategy string, now time.Time) (Policy, Version, error) {
	p.Versions = slices.Clone(p.Versions)
	if len(p.Versions) >= MaxVersions {
		if strategy != RotateOldest {
			return p, Version{}, fault.Coded(fault.LimitExceeded, ram.CodePolicyVersionLimit,
				"Delete one, or use the RotateStrategy %s.", RotateOldest)
		}
		oldest := slices.IndexFunc(p.Versions, func(v Version) bool { return v.ID != p.Default })
		p.Versions = slices.Delete(p.Versions, oldest, oldest+1)
	}
	p.Last++
	v := Version{ID: "v" + strconv.Itoa(p.Last), Document: document, CreatedAt: now}
	p.Versions = append(p.Versions, v)
	if makeDefault {
		p.Default = v.ID
	}
	p.UpdatedAt = now
	return p, v, nil
}

func (p Policy) version(id string) int {
	return slices.IndexFunc(p.Versions, func(v Version) bool { return v.ID == id })
}

// Version finds a version.
func (p Policy) Version(id string) (Version, error) {
	i := p.version(id)
	switch {
	case i >= 0:
		return p.Versions[i], nil
	case id == "":
		return Version{}, fault.Required("VersionId")
	case !isVersion(id):
		return Version{}, invalid(CodeFormat, "VersionId", "It is v and a number.")
	}
	return Version{}, fault.Coded(fault.NotFound, ram.CodePolicyVersionNotExist, "")
}

func isVersion(id string) bool {
	if len(id) < 2 || len(id) > 10 || id[0] != 'v' {
		return false
	}
	_, err := strconv.ParseUint(id[1:], 10, 32)
	return err == nil
}

// SetDefault puts a version into effect.
func (p Policy) SetDefault(id string, now time.Time) (Policy, error) {
	if _, err := p.Version(id); err != nil {
		return p, err
	}
	p.Default, p.UpdatedAt = id, now
	return p, nil
}

// DeleteVersion deletes a version that is not the default.
func (p Policy) DeleteVersion(id string, now time.Time) (Policy, error) {
	if _, err := p.Version(id); err != nil {
		return p, err
	}
	if id == p.Default {
		return p, fault.Coded(fault.InUse, ram.CodeDeleteDefaultVersion, "Make another version the default first.")
	}
	i := p.version(id)
	p.Versions, p.UpdatedAt = slices.Delete(slices.Clone(p.Versions), i, i+1), now
	return p, nil
}

// Document returns the text of the version in effect.
func (p Policy) Document() string {
	if i := p.version(p.Default); i >= 0 {
		return p.Versions[i].Document
	}
	return ""
}

// Deletable refuses to delete a policy that is attached, or has versions besides its default one
// and cascading is not set.
func (p Policy) Deletable(cascading bool) error {
	switch {
	case p.Users > 0:
		return fault.Coded(fault.InUse, ram.CodeDeletePolicyUser, "")
	case p.Groups > 0:
		return fault.Coded(fault.InUse, ram.CodeDeletePolicyGroup, "")
	case len(p.Versions) > 1 && !cascading:
		return fault.Coded(fault.InUse, ram.CodeDeletePolicyVersion, "")
	}
	return nil
}
