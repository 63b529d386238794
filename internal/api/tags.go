package api

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/cmk"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

const tagPage = 200 // rows of ListTagResources

// tagged returns the resource of TagResource.
func tagged(c *Call, in *kms.TagResourceRequest, _ []resource) ([]resource, error) {
	return c.oneOf(in.KeyID, in.SecretName, in.CertificateID)
}

// untagged returns the resource of UntagResource.
func untagged(c *Call, in *kms.UntagResourceRequest, _ []resource) ([]resource, error) {
	return c.oneOf(in.KeyID, in.SecretName, in.CertificateID)
}

// oneOf returns the resource of a request that must name exactly one key, secret or certificate.
func (c *Call) oneOf(key, name, certificate string) ([]resource, error) {
	given := slices.DeleteFunc([]string{key, name, certificate}, func(s string) bool { return s == "" })
	switch {
	case len(given) != 1:
		return nil, fault.Parameter("SecretName", "give exactly one of KeyId, SecretName and CertificateId.")
	case name != "":
		return []resource{c.secretResource(name)}, nil
	case key != "":
		return []resource{{arn: cmk.ARN(c.Region, c.Account(), key)}}, nil
	}
	return []resource{{arn: c.kmsARN("certificate/" + certificate)}}, nil
}

// taggedIDs returns the resources of TagResources.
func taggedIDs(c *Call, in *kms.TagResourcesRequest, _ []resource) ([]resource, error) {
	return c.each(in.ResourceType, in.ResourceIDs)
}

// untaggedIDs returns the resources of UntagResources.
func untaggedIDs(c *Call, in *kms.UntagResourcesRequest, _ []resource) ([]resource, error) {
	return c.each(in.ResourceType, in.ResourceIDs)
}

// listedIDs returns the resources of ListTagResources.
func listedIDs(c *Call, in *kms.ListTagResourcesRequest, _ []resource) ([]resource, error) {
	return c.each(in.ResourceType, in.ResourceIDs)
}

// each returns the resources of one type with these IDs; without IDs it returns their collection.
func (c *Call) each(kind string, ids []string) ([]resource, error) {
	if len(ids) == 0 {
		return []resource{{arn: c.kmsARN(kind)}}, nil
	}
	list := make([]resource, len(ids))
	for i, id := range ids {
		list[i] = resource{arn: cmk.ARN(c.Region, c.Account(), id)}
		if kind == kms.ResourceSecret {
			if !isSecretName(id) {
				return nil, fault.Parameter("ResourceId", "a secret name has %s", secretNameRule)
			}
			list[i] = c.secretResource(id)
		}
	}
	return list, nil
}

func tagResource(ctx context.Context, c *Call, in *kms.TagResourceRequest) (*kms.EmptyResponse, error) {
	if err := onlySecrets(in.KeyID, in.CertificateID); err != nil {
		return nil, err
	}
	return c.retag(ctx, []string{in.SecretName}, func(_ *store.Tx, s secret.Secret) (secret.Secret, error) {
		return s.Tag(in.Tags, c.At)
	})
}

func untagResource(ctx context.Context, c *Call, in *kms.UntagResourceRequest) (*kms.EmptyResponse, error) {
	if err := checkTagKeys("TagKeys", in.TagKeys); err != nil {
		return nil, err
	}
	if err := onlySecrets(in.KeyID, in.CertificateID); err != nil {
		return nil, err
	}
	return c.retag(ctx, []string{in.SecretName}, func(_ *store.Tx, s secret.Secret) (secret.Secret, error) {
		return s.Untag(in.TagKeys, false, c.At), nil
	})
}

// onlySecrets refuses keys and certificates, which this server does not have.
func onlySecrets(keyID, certificateID string) error {
	switch {
	case keyID != "":
		return fault.New(fault.KeyNotFound, "There is no key %q.", protocol.Clip(keyID))
	case certificateID != "":
		return fault.New(fault.NotFound, "There is no certificate %q.", protocol.Clip(certificateID))
	}
	return nil
}

func checkTagKeys(parameter string, keys []string) error {
	for _, k := range keys {
		if k == "" || len(k) > 128 {
			return fault.Parameter(parameter, "a tag key has 1 to 128 bytes.")
		}
	}
	return nil
}

func tagResources(ctx context.Context, c *Call, in *kms.TagResourcesRequest) (*kms.EmptyResponse, error) {
	if err := onlySecretIDs(in.ResourceType, in.ResourceIDs); err != nil {
		return nil, err
	}
	tags := make([]kms.Tag, len(in.Tags))
	for i, t := range in.Tags {
		tags[i] = kms.Tag{TagKey: t.Key, TagValue: t.Value}
	}
	return c.retag(ctx, in.ResourceIDs, func(_ *store.Tx, s secret.Secret) (secret.Secret, error) {
		s, err := s.Tag(tags, c.At)
		return s, inParameter("Tag", err)
	})
}

// inParameter replaces the parameter of an Invalid error by the name that the newer call has for
// it.
func inParameter(name string, err error) error {
	if fault.KindOf(err) == fault.Invalid {
		return fault.Parameter(name, "%s", fault.Text(protocol.AsFault(err).Msg))
	}
	return err
}

func untagResources(ctx context.Context, c *Call, in *kms.UntagResourcesRequest) (*kms.EmptyResponse, error) {
	if len(in.TagKeys) == 0 && !in.All {
		return nil, fault.Required("TagKey")
	}
	if err := checkTagKeys("TagKey", in.TagKeys); err != nil {
		return nil, err
	}
	if err := onlySecretIDs(in.ResourceType, in.ResourceIDs); err != nil {
		return nil, err
	}
	return c.retag(ctx, in.ResourceIDs, func(_ *store.Tx, s secret.Secret) (secret.Secret, error) {
		return s.Untag(in.TagKeys, len(in.TagKeys) == 0, c.At), nil
	})
}

func onlySecretIDs(kind string, ids []string) error {
	if kind == kms.ResourceKey {
		return onlySecrets(ids[0], "")
	}
	return nil
}

// retag changes the tags of several secrets, all or none.
func (c *Call) retag(ctx context.Context, names []string, rule secretRule) (*kms.EmptyResponse, error) {
	slices.Sort(names)
	return &kms.EmptyResponse{}, c.alterAll(ctx, slices.Compact(names), rule)
}

func listResourceTags(c *Call, in *kms.ListResourceTagsRequest) (*kms.ListResourceTagsResponse, error) {
	id := strings.TrimPrefix(in.KeyID, arnPrefix+c.Region+":"+c.Account()+":key/")
	_, ok, err := c.Snapshot.Key(c.Account(), id)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fault.New(fault.KeyNotFound, "There is no key %q.", protocol.Clip(id))
	}
	return &kms.ListResourceTagsResponse{Tags: []kms.KeyTag{}}, nil
}

func listTagResources(c *Call, in *kms.ListTagResourcesRequest) (*kms.ListTagResourcesResponse, error) {
	out := &kms.ListTagResourcesResponse{TagResources: []kms.TagResource{}}
	afterName, afterKey, err := parseToken(in.NextToken)
	if err != nil || in.ResourceType == kms.ResourceKey {
		return out, err
	}
	withheld, err := c.withheld("")
	if err != nil {
		return out, err
	}
	visit := func(s secret.Secret) bool {
		if withheld[s.Name] || !hasTags(s, in.Tags) || s.Name < afterName {
			return true
		}
		for _, t := range s.SortedTags() {
			if s.Name == afterName && t.TagKey <= afterKey {
				continue
			}
			if len(out.TagResources) == tagPage {
				last := out.TagResources[tagPage-1]
				out.NextToken = token(last.ResourceID, last.TagKey)
				return false
			}
			out.TagResources = append(out.TagResources, kms.TagResource{
				ResourceID:   s.Name,
				ResourceType: kms.ResourceSecret,
				TagKey:       t.TagKey,
				TagValue:     t.TagValue,
			})
		}
		return true
	}
	return out, c.visitSecrets(in.ResourceIDs, afterName, visit)
}

// visitSecrets visits the named secrets that exist, or all of the account when none is named, in
// the order of names.
func (c *Call) visitSecrets(names []string, from string, visit func(secret.Secret) bool) error {
	if len(names) == 0 {
		return c.Snapshot.Secrets(c.Account(), "", from, c.At, visit)
	}
	names = slices.Clone(names)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		s, ok, err := c.Snapshot.Secret(c.Account(), name, c.At)
		if err != nil {
			return err
		}
		if ok && !visit(s) {
			return nil
		}
	}
	return nil
}

// hasTags reports whether a secret has all these tags. A filter without a value matches any value.
func hasTags(s secret.Secret, want []kms.TagFilter) bool {
	for _, f := range want {
		value, ok := s.Tags[f.Key]
		if !ok || f.Value != nil && *f.Value != value {
			return false
		}
	}
	return true
}

// token returns the opaque token that continues a list after one row.
func token(name, key string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(name + ":" + key))
}

func parseToken(s string) (name, key string, err error) {
	if s == "" {
		return "", "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s)
	name, key, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok {
		return "", "", fault.Parameter("NextToken", "use the token of the page before, as it is.")
	}
	return name, key, nil
}
