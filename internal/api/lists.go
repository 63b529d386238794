package api

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/kms"
)

const maxFilters = 10 // of ListSecrets, and of values in each

func listSecrets(c *Call, in *kms.ListSecretsRequest) (*kms.ListSecretsResponse, error) {
	if err := checkFilters(in.Filters); err != nil {
		return nil, err
	}
	prefix, byPrefix := onlyPrefix(in.Filters)
	withheld, err := c.withheld(prefix)
	if err != nil {
		return nil, err
	}
	skip, take := rowsBefore(in.PageNumber, in.PageSize), in.PageSize
	list := []kms.ListedSecret{}
	row := func(s secret.Secret) { list = append(list, listedSecret(s, in.FetchTags)) }
	total := 0
	if byPrefix {
		total, err = c.Snapshot.SecretPage(c.Account(), prefix, withheld, skip, take, c.At, row)
	} else {
		err = c.Snapshot.Secrets(c.Account(), "", "", c.At, func(s secret.Secret) bool {
			if !withheld[s.Name] && matches(s, in.Filters) {
				if total++; total > skip && total <= skip+take {
					row(s)
				}
			}
			return true
		})
	}
	if err != nil {
		return nil, err
	}
	return &kms.ListSecretsResponse{
		SecretList: list,
		PageNumber: in.PageNumber,
		PageSize:   in.PageSize,
		TotalCount: total,
	}, nil
}

// withheld returns those secrets whose names begin with prefix and whose own policy denies the
// caller the operation. A list leaves them out, from its counts too.
func (c *Call) withheld(prefix string) (map[string]bool, error) {
	names, err := c.Snapshot.Denying(c.Account(), prefix)
	if err != nil {
		return nil, err
	}
	list := map[string]bool{}
	for _, name := range names {
		q := c.asking(c.op.Action, c.secretResource(name))
		q.identity = noPolicies // the policies of the caller were evaluated for the whole list
		d, err := q.decide(c.Snapshot)
		if err != nil {
			return nil, err
		}
		if d.Explicit {
			list[name] = true
		}
	}
	return list, nil
}

// rowsBefore returns how many rows come before a page. A page number has no upper bound, so the
// product is kept from overflowing: no list has more than MaxInt/2 rows.
func rowsBefore(page, size int) int { return min(page-1, math.MaxInt/2/size) * size }

func listedSecret(s secret.Secret, tags bool) kms.ListedSecret {
	row := kms.ListedSecret{
		SecretName:        s.Name,
		SecretType:        s.Type,
		CreateTime:        s.CreatedAt,
		UpdateTime:        s.UpdatedAt,
		PlannedDeleteTime: s.DeleteAt,
	}
	if tags {
		t := s.SortedTags()
		row.Tags = &t
	}
	return row
}

// filters say how a value of each key is matched; the reference leaves it open for SecretName and
// Description.
var filters = map[string]func(s secret.Secret, value string) bool{
	"SecretName":     func(s secret.Secret, v string) bool { return strings.HasPrefix(s.Name, v) },
	"Description":    func(s secret.Secret, v string) bool { return strings.Contains(s.Description, v) },
	"TagKey":         func(s secret.Secret, v string) bool { _, ok := s.Tags[v]; return ok },
	"TagValue":       hasTagValue,
	"DKMSInstanceId": func(s secret.Secret, v string) bool { return s.DKMSInstanceID == v },
	"SecretType":     func(s secret.Secret, v string) bool { return s.Type == v },
	"Creator":        func(s secret.Secret, v string) bool { return s.Creator == v },
}

func hasTagValue(s secret.Secret, v string) bool {
	return slices.Contains(slices.Collect(maps.Values(s.Tags)), v)
}

func checkFilters(list []kms.Filter) error {
	if len(list) > maxFilters {
		return fault.Parameter("Filters", "use at most %d filters.", maxFilters)
	}
	for _, f := range list {
		switch {
		case filters[f.Key] == nil:
			return fault.Parameter("Filters",
				"a Key is one of SecretName, Description, TagKey, TagValue, DKMSInstanceId, SecretType, Creator.")
		case len(f.Values) > maxFilters:
			return fault.Parameter("Filters", "use at most %d values in a filter.", maxFilters)
		}
	}
	return nil
}

// onlyPrefix reports whether the filters ask for nothing but names that begin with one text, which
// the store can answer without reading every secret.
func onlyPrefix(list []kms.Filter) (string, bool) {
	switch {
	case len(list) == 0:
		return "", true
	case len(list) == 1 && list[0].Key == "SecretName" && len(list[0].Values) == 1:
		return list[0].Values[0], true
	}
	return "", false
}

// matches reports whether all filters hold. A filter without values narrows nothing.
func matches(s secret.Secret, list []kms.Filter) bool {
	for _, f := range list {
		if len(f.Values) > 0 && !slices.ContainsFunc(f.Values, func(v string) bool { return filters[f.Key](s, v) }) {
			return false
		}
	}
	return true
}

func listSecretVersionIds(c *Call, in *kms.ListSecretVersionIdsRequest) (*kms.ListSecretVersionIdsResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	versions := s.List(in.IncludeDeprecated)
	out := &kms.ListSecretVersionIdsResponse{
		SecretName: s.Name,
		VersionIDs: []kms.ListedVersion{},
		PageNumber: in.PageNumber,
		PageSize:   in.PageSize,
		TotalCount: len(versions),
	}
	start := min(rowsBefore(in.PageNumber, in.PageSize), len(versions))
	for _, v := range versions[start:min(start+in.PageSize, len(versions))] {
		out.VersionIDs = append(out.VersionIDs, kms.ListedVersion{
			VersionID:     v.ID,
			CreateTime:    v.CreatedAt,
			VersionStages: s.Labels(v.ID),
		})
	}
	return out, nil
}

// listSecretConsumers lists the consumers that were seen to use a secret.
func listSecretConsumers(
	ctx context.Context, c *Call, in *kms.ListSecretConsumersRequest,
) (*kms.ListSecretConsumersResponse, error) {
	s, err := c.existing(c.Snapshot, in.SecretName)
	if err != nil {
		return nil, err
	}
	p, err := newPage[kms.SecretConsumer]("NextToken", in.NextToken, in.MaxResults)
	if err != nil {
		return nil, err
	}
	if err := c.Consumers.Sync(ctx, s.Account, s.Name); err != nil {
		return nil, err
	}
	current := s.Stages[secret.Current]
	visit := func(key string, u rotation.Sighting) bool {
		return in.Behind && !u.Behind(current) || p.add(key, shownConsumer(u, current))
	}
	err = store.Snapshot(ctx, c.DB).Consumers(s.Account, s.Name, p.after, visit)
	return &kms.ListSecretConsumersResponse{
		SecretName: s.Name,
		VersionID:  current,
		Consumers:  p.rows,
		NextToken:  p.marker(),
	}, err
}

func shownConsumer(u rotation.Sighting, current string) kms.SecretConsumer {
	out := kms.SecretConsumer{
		Consumer:        u.Instance,
		Principal:       u.Principal,
		Source:          u.Source,
		VersionID:       u.Version,
		OldestVersionID: cmp.Or(u.Oldest, u.Version),
		Evidence:        kms.EvidenceInferred,
		LastSeen:        u.Seen,
		Behind:          u.Behind(current),
	}
	if u.Acknowledged() {
		out.Evidence = kms.EvidenceAcknowledged
	}
	return out
}
