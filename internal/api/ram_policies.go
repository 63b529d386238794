package api

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/ram"
)

func shownPolicy(p users.Policy) ram.Policy {
	return ram.Policy{
		PolicyName:      p.Name,
		PolicyType:      p.Type,
		Description:     p.Description,
		DefaultVersion:  p.Default,
		CreateDate:      p.CreatedAt,
		UpdateDate:      p.UpdatedAt,
		AttachmentCount: p.Users + p.Groups,
	}
}

func shownVersion(p users.Policy, v users.Version, document bool) ram.PolicyVersion {
	out := ram.PolicyVersion{VersionID: v.ID, IsDefaultVersion: v.ID == p.Default, CreateDate: v.CreatedAt}
	if document {
		out.PolicyDocument = v.Document
	}
	return out
}

// checkDocument refuses a document that the gate could not read whole: an element that it ignored
// might be the one that narrows a statement.
func checkDocument(text string) error {
	switch {
	case text == "":
		return fault.Required("PolicyDocument")
	case utf8.RuneCountInString(text) > policy.MaxIdentityChars:
		return &fault.Error{Kind: fault.Invalid, Code: users.CodeLength, Param: "PolicyDocument"}
	}
	if _, err := policy.ParseIdentity(text); err != nil {
		return fault.Coded(fault.Invalid, ram.CodeMalformedPolicy, "%s", err)
	}
	return nil
}

func tagMap(list []ram.Tag) map[string]string {
	m := map[string]string{}
	for _, t := range list {
		m[t.Key] = t.Value
	}
	return m
}

func createPolicy(ctx context.Context, c *Call, in *ram.CreatePolicyRequest) (*ram.CreatePolicyResponse, error) {
	if err := users.CheckPolicyName("PolicyName", in.PolicyName); err != nil {
		return nil, err
	}
	c.resource = c.ramResource("policy/" + in.PolicyName)
	if err := checkDocument(in.PolicyDocument); err != nil {
		return nil, err
	}
	p, err := users.NewPolicy(c.Account(), in.PolicyName, in.PolicyDocument, in.Description, tagMap(in.Tags), c.At)
	if err != nil {
		return nil, err
	}
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.CreatePolicyResponse, error) {
		_, taken, err := tx.Policy(c.Account(), users.Custom, p.Name)
		if err := mustBeFree(taken, err, ram.CodePolicyExists); err != nil {
			return nil, err
		}
		count, err := tx.CountPolicies(c.Account())
		if err := limited(count, err, users.MaxPolicies, ram.CodePolicyLimit); err != nil {
			return nil, err
		}
		return &ram.CreatePolicyResponse{Policy: shownPolicy(p)}, tx.PutPolicy(c.Account(), p)
	})
}

func getPolicy(c *Call, in *ram.PolicyRequest) (*ram.GetPolicyResponse, error) {
	p, err := c.policy(c.Snapshot, in.PolicyType, in.PolicyName)
	if err != nil {
		return nil, err
	}
	v, err := p.Version(p.Default)
	out := &ram.GetPolicyResponse{Policy: shownPolicy(p), DefaultPolicyVersion: shownVersion(p, v, true)}
	out.Policy.PolicyDocument = v.Document
	return out, err
}

// listPolicies lists the policies that come with the service before the account's own. A marker
// says in which of the two lists the next page begins.
func listPolicies(c *Call, in *ram.ListPoliciesRequest) (*ram.ListPoliciesResponse, error) {
	if in.PolicyType != "" {
		if err := users.CheckPolicyType(in.PolicyType); err != nil {
			return nil, err
		}
	}
	p, err := newPage[ram.Policy]("Marker", in.Marker, in.MaxItems)
	if err != nil {
		return nil, err
	}
	after, want := p.after, tagMap(in.Tags)
	const systemMark = "System:"
	afterSystem, inSystem := strings.CutPrefix(after, systemMark)
	if in.PolicyType != users.Custom && (after == "" || inSystem) {
		for _, own := range users.SystemPolicies() {
			if own.Name <= afterSystem && inSystem || !own.HasTags(want) {
				continue
			}
			own, err := c.policy(c.Snapshot, users.System, own.Name)
			if err != nil {
				return nil, err
			}
			if !p.add(systemMark+own.Name, shownPolicy(own)) {
				break
			}
		}
	}
	if inSystem {
		after = ""
	}
	if in.PolicyType != users.System && !p.more {
		err = c.Snapshot.Policies(c.Account(), after, func(own users.Policy) bool {
			return !own.HasTags(want) || p.add(own.Name, shownPolicy(own))
		})
	}
	return &ram.ListPoliciesResponse{IsTruncated: p.more, Marker: p.marker(), Policies: p.rows}, err
}

// alterPolicy changes one custom policy in one transaction.
func (c *Call) alterPolicy(
	ctx context.Context, name string, rule func(users.Policy) (users.Policy, error),
) (users.Policy, error) {
	return alterRecord(ctx, c,
		func(tx *store.Tx) (users.Policy, error) { return c.policy(tx, users.Custom, name) },
		func(_ *store.Tx, p users.Policy) (users.Policy, error) { return rule(p) },
		func(tx *store.Tx, p users.Policy) error { return tx.PutPolicy(c.Account(), p) })
}

func updatePolicyDescription(
	ctx context.Context, c *Call, in *ram.UpdatePolicyDescriptionRequest,
) (*ram.CreatePolicyResponse, error) {
	p, err := c.alterPolicy(ctx, in.PolicyName, func(p users.Policy) (users.Policy, error) {
		return p.Describe("NewDescription", in.NewDescription, c.At)
	})
	return &ram.CreatePolicyResponse{Policy: shownPolicy(p)}, err
}

func deletePolicy(ctx context.Context, c *Call, in *ram.DeletePolicyRequest) (*ram.EmptyResponse, error) {
	return store.Update(ctx, c.DB, func(tx *store.Tx) (*ram.EmptyResponse, error) {
		p, err := c.policy(tx, users.Custom, in.PolicyName)
		if err != nil {
			return nil, err
		}
		if err := p.Deletable(in.CascadingDelete); err != nil {
			return nil, err
		}
		tx.DeletePolicy(c.Account(), p.Name)
		return &ram.EmptyResponse{}, nil
	})
}

func createPolicyVersion(
	ctx context.Context, c *Call, in *ram.CreatePolicyVersionRequest,
) (*ram.PolicyVersionResponse, error) {
	if err := checkDocument(in.PolicyDocument); err != nil {
		return nil, err
	}
	if s := in.RotateStrategy; s != "" && s != ram.RotateNone && s != ram.RotateOldest {
		return nil, fault.Parameter("RotateStrategy", "use %s or %s.", ram.RotateNone, ram.RotateOldest)
	}
	var v users.Version
	p, err := c.alterPolicy(ctx, in.PolicyName, func(p users.Policy) (users.Policy, error) {
		var err error
		p, v, err = p.AddVersion(in.PolicyDocument, in.SetAsDefault, in.RotateStrategy, c.At)
		c.concerns(v.ID, "")
		return p, err
	})
	return &ram.PolicyVersionResponse{PolicyVersion: shownVersion(p, v, true)}, err
}

func getPolicyVersion(c *Call, in *ram.GetPolicyVersionRequest) (*ram.PolicyVersionResponse, error) {
	p, err := c.policy(c.Snapshot, in.PolicyType, in.PolicyName)
	if err != nil {
		return nil, err
	}
	v, err := p.Version(in.VersionID)
	return &ram.PolicyVersionResponse{PolicyVersion: shownVersion(p, v, true)}, err
}

func listPolicyVersions(c *Call, in *ram.PolicyRequest) (*ram.ListPolicyVersionsResponse, error) {
	p, err := c.policy(c.Snapshot, in.PolicyType, in.PolicyName)
	out := &ram.ListPolicyVersionsResponse{PolicyVersions: []ram.PolicyVersion{}}
	for _, v := range p.Versions {
		out.PolicyVersions = append(out.PolicyVersions, shownVersion(p, v, false))
	}
	return out, err
}

func setDefaultPolicyVersion(ctx context.Context, c *Call, in *ram.PolicyVersionRequest) (*ram.EmptyResponse, error) {
	_, err := c.alterPolicy(ctx, in.PolicyName, func(p users.Policy) (users.Policy, error) {
		return p.SetDefault(in.VersionID, c.At)
	})
	return &ram.EmptyResponse{}, err
}

func deletePolicyVersion(ctx context.Context, c *Call, in *ram.PolicyVersionRequest) (*ram.EmptyResponse, error) {
	_, err := c.alterPolicy(ctx, in.PolicyName, func(p users.Policy) (users.Policy, error) {
		return p.DeleteVersion(in.VersionID, c.At)
	})
	return &ram.EmptyResponse{}, err
}

// wholeAccount refuses a resource group. There are none here, and an attachment that was meant for
// one must not become one for the account.
func (c *Call) wholeAccount(resourceGroup string) error {
	if resourceGroup != "" && resourceGroup != c.Account() {
		return fault.Parameter("ResourceGroupId", "there are no resource groups; leave it out to attach for the account.")
	}
	return nil
}

// attach changes the number of a policy's attachments. That keeps the policy from being deleted in
// the meantime.
func (c *Call) attach(tx *store.Tx, kind, name string, change func(*users.Policy)) error {
	p, err := c.policy(tx, kind, name)
	if err != nil {
		return err
	}
	change(&p)
	return tx.PutPolicy(c.Account(), p)
}

func attachPolicyToUser(ctx context.Context, c *Call, in *ram.UserPolicyRequest) (*ram.EmptyResponse, error) {
	return c.userPolicy(ctx, in, 1, func(u users.User) (users.User, error) {
		return u.Attach(in.PolicyType, in.PolicyName, c.At)
	})
}

func detachPolicyFromUser(ctx context.Context, c *Call, in *ram.UserPolicyRequest) (*ram.EmptyResponse, error) {
	return c.userPolicy(ctx, in, -1, func(u users.User) (users.User, error) {
		return u.Detach(in.PolicyType, in.PolicyName)
	})
}

func (c *Call) userPolicy(
	ctx context.Context, in *ram.UserPolicyRequest, more int, change func(users.User) (users.User, error),
) (*ram.EmptyResponse, error) {
	if err := c.wholeAccount(in.ResourceGroupID); err != nil {
		return nil, err
	}
	return c.alterUser(ctx, in.UserName, func(tx *store.Tx, u users.User) (users.User, error) {
		if err := c.attach(tx, in.PolicyType, in.PolicyName, func(p *users.Policy) { p.Users += more }); err != nil {
			return u, err
		}
		return change(u)
	})
}

func attachPolicyToGroup(ctx context.Context, c *Call, in *ram.GroupPolicyRequest) (*ram.EmptyResponse, error) {
	return c.groupPolicy(ctx, in, 1, func(g users.Group) (users.Group, error) {
		return g.Attach(in.PolicyType, in.PolicyName, c.At)
	})
}

func detachPolicyFromGroup(ctx context.Context, c *Call, in *ram.GroupPolicyRequest) (*ram.EmptyResponse, error) {
	return c.groupPolicy(ctx, in, -1, func(g users.Group) (users.Group, error) {
		return g.Detach(in.PolicyType, in.PolicyName)
	})
}

func (c *Call) groupPolicy(
	ctx context.Context, in *ram.GroupPolicyRequest, more int, change func(users.Group) (users.Group, error),
) (*ram.EmptyResponse, error) {
	if err := c.wholeAccount(in.ResourceGroupID); err != nil {
		return nil, err
	}
	return c.alterGroup(ctx, in.GroupName, func(tx *store.Tx, g users.Group) (users.Group, error) {
		if err := c.attach(tx, in.PolicyType, in.PolicyName, func(p *users.Policy) { p.Groups += more }); err != nil {
			return g, err
		}
		return change(g)
	}, (*store.Tx).PutGroup)
}

func listPoliciesForUser(c *Call, in *ram.ListPoliciesForUserRequest) (*ram.AttachedPoliciesResponse, error) {
	u, err := c.user(c.Snapshot, in.UserName)
	if err != nil {
		return nil, err
	}
	return c.attached(u.Policies)
}

func listPoliciesForGroup(c *Call, in *ram.ListPoliciesForGroupRequest) (*ram.AttachedPoliciesResponse, error) {
	g, err := c.group(c.Snapshot, in.GroupName)
	if err != nil {
		return nil, err
	}
	return c.attached(g.Policies)
}

func (c *Call) attached(list []users.Attachment) (*ram.AttachedPoliciesResponse, error) {
	out := &ram.AttachedPoliciesResponse{Policies: []ram.AttachedPolicy{}}
	for _, a := range list {
		p, err := c.policy(c.Snapshot, a.Type, a.Name)
		if err != nil {
			return nil, err
		}
		out.Policies = append(out.Policies, ram.AttachedPolicy{
			PolicyName:     p.Name,
			PolicyType:     p.Type,
			Description:    p.Description,
			DefaultVersion: p.Default,
			AttachDate:     a.At,
		})
	}
	return out, nil
}

func listEntitiesForPolicy(c *Call, in *ram.PolicyRequest) (*ram.ListEntitiesForPolicyResponse, error) {
	if _, err := c.policy(c.Snapshot, in.PolicyType, in.PolicyName); err != nil {
		return nil, err
	}
	out := &ram.ListEntitiesForPolicyResponse{Groups: []ram.Group{}, Users: []ram.User{}, Roles: []ram.Role{}}
	err := c.Snapshot.Users(c.Account(), "", func(u users.User) bool {
		if at, ok := u.AttachedAt(in.PolicyType, in.PolicyName); ok {
			row := namedUser(u)
			row.AttachDate = at
			out.Users = append(out.Users, row)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	err = c.Snapshot.Groups(c.Account(), "", func(g users.Group) bool {
		if at, ok := g.AttachedAt(in.PolicyType, in.PolicyName); ok {
			row := namedGroup(g)
			row.AttachDate = at
			out.Groups = append(out.Groups, row)
		}
		return true
	})
	return out, err
}
