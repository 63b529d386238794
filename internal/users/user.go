package users

import (
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/ram"
)

// User is an identity that calls: an application or an operator.
type User struct {
	Account string `json:"account"`
	Name    string `json:"name"`
	// ID distinguishes a user from an earlier one of the same name.
	ID          string       `json:"id"`
	DisplayName string       `json:"display_name,omitempty"`
	MobilePhone string       `json:"mobile_phone,omitempty"`
	Email       string       `json:"email,omitempty"`
	Comments    string       `json:"comments,omitempty"`
	CreatedAt   time.Time    `json:"created_at"`
	UpdatedAt   time.Time    `json:"updated_at"`
	Keys        []Key        `json:"keys,omitempty"`
	Policies    []Attachment `json:"policies,omitempty"`
	Groups      []Membership `json:"groups,omitempty"`
}

// Key is an access key of a user. Its secret is in a record of its own.
type Key struct {
	ID        string    `json:"id"`
	Disabled  bool      `json:"disabled,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// Membership is a group that a user belongs to. It names the group by its ID, which stays when the
// group is renamed.
type Membership struct {
	GroupID string    `json:"group_id"`
	At      time.Time `json:"at"`
}

// Profile describes a user; nil leaves a field as it is.
type Profile struct {
	DisplayName, MobilePhone, Email, Comments *string
}

var (
	phoneForm = regexp.MustCompile(`^[0-9]{1,4}-[0-9]{4,20}$`)
	emailForm = regexp.MustCompile(`^[^@\s]{1,64}@[^@\s]{1,190}$`)
)

// NewUser returns a user without rights. The name is the default of the display name.
func NewUser(account, id, name string, p Profile, now time.Time) (User, error) {
	if err := CheckUserName("UserName", name); err != nil {
		return User{}, err
	}
	u, err := User{Account: account, Name: name, ID: id, DisplayName: name, CreatedAt: now}.Update("", "", p, now)
	return u, err
}

// Update changes what p has, and the name unless newName is empty. prefix stands before the
// parameters' names in errors.
func (u User) Update(prefix, newName string, p Profile, now time.Time) (User, error) {
	if newName != "" {
		if err := CheckUserName(prefix+"UserName", newName); err != nil {
			return u, err
		}
		u.Name = newName
	}
	if s := p.DisplayName; s != nil && *s != "" {
		if err := checkDisplayName(prefix+"DisplayName", *s); err != nil {
			return u, err
		}
		u.DisplayName = *s
	}
	for _, f := range []struct {
		name string
		form *regexp.Regexp
		from *string
		to   *string
	}{{"MobilePhone", phoneForm, p.MobilePhone, &u.MobilePhone}, {"Email", emailForm, p.Email, &u.Email}} {
		if f.from == nil {
			continue
		}
		if *f.from != "" && !f.form.MatchString(*f.from) {
			return u, invalid(CodeFormat, prefix+f.name, "")
		}
		*f.to = *f.from
	}
	if s := p.Comments; s != nil {
		if err := checkText(prefix+"Comments", *s, 128); err != nil {
			return u, err
		}
		u.Comments = *s
	}
	u.UpdatedAt = now
	return u, nil
}

// checkDisplayName takes letters of any script, digits, spaces and @ . _ -
func checkDisplayName(parameter, s string) error {
	if utf8.RuneCountInString(s) > 128 {
		return invalid(CodeLength, parameter, "")
	}
	for _, r := range s {
		if r < ' ' || r == utf8.RuneError || r < utf8.RuneSelf && checkName(parameter, string(r), displayMarks, 1) != nil {
			return invalid(CodeChars, parameter, "Use letters, digits, spaces and @ . _ -")
		}
	}
	return nil
}

// Deletable refuses to delete a user who still has keys, policies or groups.
func (u User) Deletable() error {
	switch {
	case len(u.Keys) > 0:
		return fault.Coded(fault.InUse, ram.CodeDeleteUserKey, "")
	case len(u.Policies) > 0:
		return fault.Coded(fault.InUse, ram.CodeDeleteUserPolicy, "")
	case len(u.Groups) > 0:
		return fault.Coded(fault.InUse, ram.CodeDeleteUserGroup, "")
	}
	return nil
}

// AddKey adds an access key. A user has at most two, so that one can replace the other without a
// gap.
func (u User) AddKey(id string, now time.Time) (User, error) {
	if len(u.Keys) >= MaxKeys {
		return u, fault.Coded(fault.LimitExceeded, ram.CodeKeyLimit, "Delete one of the two first.")
	}
	u.Keys = append(slices.Clone(u.Keys), Key{ID: id, CreatedAt: now})
	return u, nil
}

// Key finds an access key of the user.
func (u User) Key(id string) (Key, error) {
	i := u.key(id)
	if i < 0 {
		return Key{}, fault.Coded(fault.NotFound, ram.CodeKeyNotExist, "")
	}
	return u.Keys[i], nil
}

func (u User) key(id string) int {
	return slices.IndexFunc(u.Keys, func(k Key) bool { return k.ID == id })
}

// SetKey switches an access key on or off.
func (u User) SetKey(id string, disabled bool) (User, error) {
	if _, err := u.Key(id); err != nil {
		return u, err
	}
	u.Keys = slices.Clone(u.Keys)
	u.Keys[u.key(id)].Disabled = disabled
	return u, nil
}

// RemoveKey removes an access key.
func (u User) RemoveKey(id string) (User, error) {
	if _, err := u.Key(id); err != nil {
		return u, err
	}
	i := u.key(id)
	u.Keys = slices.Delete(slices.Clone(u.Keys), i, i+1)
	return u, nil
}

// Attach attaches a policy to the user.
func (u User) Attach(kind, name string, now time.Time) (User, error) {
	list, err := attachments(u.Policies).add(kind, name, now, ram.CodeUserHasPolicy, ram.CodeUserPolicyLimit)
	u.Policies = list
	return u, err
}

// Detach detaches a policy from the user.
func (u User) Detach(kind, name string) (User, error) {
	list, err := attachments(u.Policies).remove(kind, name, ram.CodeUserWithoutPolicy)
	u.Policies = list
	return u, err
}

// AttachedAt finds an attached policy.
func (u User) AttachedAt(kind, name string) (time.Time, bool) {
	return attachedAt(u.Policies, kind, name)
}

func attachedAt(list attachments, kind, name string) (time.Time, bool) {
	if i := list.find(kind, name); i >= 0 {
		return list[i].At, true
	}
	return time.Time{}, false
}

func (u User) group(id string) int {
	return slices.IndexFunc(u.Groups, func(m Membership) bool { return m.GroupID == id })
}

// JoinedAt returns since when the user is in the group with that ID.
func (u User) JoinedAt(groupID string) (time.Time, bool) {
	if i := u.group(groupID); i >= 0 {
		return u.Groups[i].At, true
	}
	return time.Time{}, false
}

// Join adds the user to the group of that ID.
func (u User) Join(groupID string, now time.Time) (User, error) {
	switch {
	case u.group(groupID) >= 0:
		return u, fault.Coded(fault.Exists, ram.CodeUserInGroup, "")
	case len(u.Groups) >= MaxGroupsOfUser:
		return u, fault.Coded(fault.LimitExceeded, ram.CodeUserGroupLimit, "At most %d.", MaxGroupsOfUser)
	}
	u.Groups = append(slices.Clone(u.Groups), Membership{GroupID: groupID, At: now})
	return u, nil
}

// Leave removes the user from the group of that ID.
func (u User) Leave(groupID string) (User, error) {
	i := u.group(groupID)
	if i < 0 {
		return u, fault.Coded(fault.NotFound, ram.CodeUserNotInGroup, "")
	}
	u.Groups = slices.Delete(slices.Clone(u.Groups), i, i+1)
	return u, nil
}
