package kms

import (
	"context"

	"github.com/keyturn/keyturn/internal/operation"
)

// TagResourceRequest adds or overwrites tags of one key, secret or certificate (the older call).
type TagResourceRequest struct {
	// Exactly one of KeyID, SecretName (a name, no ARN) and CertificateID.
	KeyID         string `kms:"KeyId"`
	SecretName    string `kms:"SecretName,max=192,pattern=name"`
	CertificateID string `kms:"CertificateId"`
	// Tags to set; an existing key gets the new value.
	Tags []Tag `kms:"Tags,required,json"`
}

// UntagResourceRequest removes tags of one key, secret or certificate (the older call).
type UntagResourceRequest struct {
	// Exactly one of KeyID, SecretName (a name, no ARN) and CertificateID.
	KeyID         string `kms:"KeyId"`
	SecretName    string `kms:"SecretName,max=192,pattern=name"`
	CertificateID string `kms:"CertificateId"`
	// TagKeys to remove; missing ones are ignored.
	TagKeys []string `kms:"TagKeys,required,json"`
}

// ListResourceTagsRequest asks for the tags of a key. For a secret use ListTagResources or
// DescribeSecret.
type ListResourceTagsRequest struct {
	KeyID string `kms:"KeyId,required,resource=key"`
}

// KeyTag is one row of ListResourceTags.
type KeyTag struct {
	KeyID    string `kms:"KeyId"`
	TagKey   string `kms:"TagKey"`
	TagValue string `kms:"TagValue"`
}

// ListResourceTagsResponse answers ListResourceTags.
type ListResourceTagsResponse struct {
	Tags      []KeyTag `kms:"Tags,list=Tag"`
	RequestID string   `kms:"RequestId"`
}

// Types of a resource that has tags (ResourceType).
const (
	ResourceKey    = "key"
	ResourceSecret = "secret"
)

// ResourceTag is a tag in the spelling of the newer calls.
type ResourceTag struct {
	Key   string `flat:"Key"`
	Value string `flat:"Value"`
}

// TagFilter is a tag to look for. A nil Value matches any.
type TagFilter struct {
	Key   string  `flat:"Key"`
	Value *string `flat:"Value"`
}

// TagResourcesRequest adds tags to several resources of one type, all or none.
type TagResourcesRequest struct {
	// RegionID is required by the cloud's clients; the server has one region and ignores it.
	RegionID string `kms:"RegionId,required"`
	// ResourceType is ResourceKey or ResourceSecret.
	ResourceType string `kms:"ResourceType,required,enum=key|secret"`
	// ResourceIDs are 1 to 50 key ids or secret names.
	ResourceIDs []string `kms:"ResourceId,required,flat,min=1,max=50"`
	// Tags are 1 to 20.
	Tags []ResourceTag `kms:"Tag,required,flat,min=1,max=20"`
}

// UntagResourcesRequest removes tags from several resources of one type, all or none.
type UntagResourcesRequest struct {
	// RegionID is required by the cloud's clients; the server has one region and ignores it.
	RegionID string `kms:"RegionId,required"`
	// ResourceType is ResourceKey or ResourceSecret.
	ResourceType string `kms:"ResourceType,required,enum=key|secret"`
	// ResourceIDs are 1 to 50 key ids or secret names.
	ResourceIDs []string `kms:"ResourceId,required,flat,min=1,max=50"`
	// TagKeys are at most 20.
	TagKeys []string `kms:"TagKey,flat,min=0,max=20"`
	// All removes every tag when TagKeys is empty.
	All bool `kms:"All,default=false"`
}

// ListTagResourcesRequest lists tags by resource, by tag, or both; 200 rows a page.
type ListTagResourcesRequest struct {
	// RegionID is required by the cloud's clients; the server has one region and ignores it.
	RegionID string `kms:"RegionId,required"`
	// ResourceType is ResourceKey or ResourceSecret.
	ResourceType string `kms:"ResourceType,required,enum=key|secret"`
	// ResourceIDs are at most 50; none means all. Unknown ones are left out.
	ResourceIDs []string `kms:"ResourceId,flat,min=0,max=50"`
	// Tags are at most 20, and must all be there.
	Tags []TagFilter `kms:"Tag,flat,min=0,max=20"`
	// NextToken continues after the page that returned it.
	NextToken string `kms:"NextToken"`
}

// TagResource is one row of ListTagResources: one tag of one resource.
type TagResource struct {
	ResourceID   string `kms:"ResourceId"`
	ResourceType string `kms:"ResourceType"`
	TagKey       string `kms:"TagKey"`
	TagValue     string `kms:"TagValue"`
}

// ListTagResourcesResponse is a page of tags.
type ListTagResourcesResponse struct {
	TagResources []TagResource `kms:"TagResources,list=TagResource"`
	// NextToken is empty on the last page.
	NextToken string `kms:"NextToken"`
	RequestID string `kms:"RequestId"`
}

// tagOperations declares the operations on tags.
var tagOperations = []operation.Declaration{
	declare[TagResourceRequest, EmptyResponse]("TagResource").OnFound("key or secret").Mutates().Retryable().
		Grantable(),
	declare[UntagResourceRequest, EmptyResponse]("UntagResource").OnFound("key or secret").Mutates().Retryable().
		Grantable(),
	declare[ListResourceTagsRequest, ListResourceTagsResponse]("ListResourceTags"),
	declare[TagResourcesRequest, EmptyResponse]("TagResources").OnFound("each").Mutates().Retryable().Grantable(),
	declare[UntagResourcesRequest, EmptyResponse]("UntagResources").OnFound("each").Mutates().Retryable().Grantable(),
	declare[ListTagResourcesRequest, ListTagResourcesResponse]("ListTagResources").OnFound("each").Grantable(),
}

// TagResource adds or overwrites tags of one resource.
func (c *Client) TagResource(ctx context.Context, in *TagResourceRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "TagResource", in)
}

// UntagResource removes tags of one resource.
func (c *Client) UntagResource(ctx context.Context, in *UntagResourceRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "UntagResource", in)
}

// ListResourceTags returns the tags of a key.
func (c *Client) ListResourceTags(ctx context.Context, in *ListResourceTagsRequest) (*ListResourceTagsResponse, error) {
	return call[ListResourceTagsResponse](ctx, c, "ListResourceTags", in)
}

// TagResources adds tags to several resources, all or none.
func (c *Client) TagResources(ctx context.Context, in *TagResourcesRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "TagResources", in)
}

// UntagResources removes tags from several resources, all or none.
func (c *Client) UntagResources(ctx context.Context, in *UntagResourcesRequest) (*EmptyResponse, error) {
	return call[EmptyResponse](ctx, c, "UntagResources", in)
}

// ListTagResources returns a page of tags.
func (c *Client) ListTagResources(ctx context.Context, in *ListTagResourcesRequest) (*ListTagResourcesResponse, error) {
	return call[ListTagResourcesResponse](ctx, c, "ListTagResources", in)
}
