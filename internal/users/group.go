package users

import (
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/ram"
)

// Group is a set of users who share its policies. Who is in it is in the users' records.
type Group struct {
	Account   string    `json:"account"`
	Name      string    `json:"name"`
	ID        string    `json:"id"`
	Comments  string    `json:"comments,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
	// Members is how many users are in it.
	Members  int          `json:"members,omitempty"`
	Policies []Attachment `json:"policies,omitempty"`
}

// GroupRights is what a decision needs to know of a group. Users name it by its ID.
type GroupRights struct {
	Account  string       `json:"account"`
	ID       string       `json:"id"`
	Name     string       `json:"name"`
	Policies []Attachment `json:"policies,omitempty"`
}

// Rights returns the part of the group that decisions read.
func (g Group) Rights() GroupRights {
	return GroupRights{Account: g.Account, ID: g.ID, Name: g.Name, Policies: g.Policies}
}

// NewGroup returns a group without members and policies.
func NewGroup(account, id, name, comments string, now time.Time) (Group, error) {
	if err := CheckGroupName("GroupName", name); err != nil {
		return Group{}, err
	}
	return Group{Account: account, Name: name, ID: id, CreatedAt: now}.Update("", "", &comments, now)
}

// Update changes the comments unless they are nil, and the name unless newName is empty.
func (g Group) Update(prefix, newName string, comments *string, now time.Time) (Group, error) {
	if newName != "" {
		if err := CheckGroupName(prefix+"GroupName", newName); err != nil {
			return g, err
		}
		g.Name = newName
	}
	if comments != nil {
		if err := checkText(prefix+"Comments", *comments, 128); err != nil {
			return g, err
		}
		g.Comments = *comments
	}
	g.UpdatedAt = now
	return g, nil
}

// Deletable refuses to delete a group that still has members or policies.
func (g Group) Deletable() error {
	switch {
	case g.Members > 0:
		return fault.Coded(fault.InUse, ram.CodeDeleteGroupUser, "")
	case len(g.Policies) > 0:
		return fault.Coded(fault.InUse, ram.CodeDeleteGroupPolicy, "")
	}
	return nil
}

// Attach attaches a policy to the group.
func (g Group) Attach(kind, name string, now time.Time) (Group, error) {
	list, err := attachments(g.Policies).add(kind, name, now, ram.CodeGroupHasPolicy, ram.CodeGroupPolicyLimit)
	g.Policies = list
	return g, err
}

// Detach detaches a policy from the group.
func (g Group) Detach(kind, name string) (Group, error) {
	list, err := attachments(g.Policies).remove(kind, name, ram.CodeGroupWithoutPolicy)
	g.Policies = list
	return g, err
}

// AttachedAt finds an attached policy.
func (g Group) AttachedAt(kind, name string) (time.Time, bool) {
	return attachedAt(g.Policies, kind, name)
}
