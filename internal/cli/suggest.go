package cli

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/keyturn/keyturn/internal/settings"
	"github.com/keyturn/keyturn/kms"
)

// absent is what the service says of a secret or target that is not there.
var absent = regexp.MustCompile(`There is no (secret|target) "([^"]+)"`)

// suggest adds to the error that a secret or target is not there the name that was probably meant,
// and the command that lists the names. A caller who may not list them learns only the command.
func (e *env) suggest(err error) error {
	var service *kms.Error
	if !errors.As(err, &service) || service.Code != kms.CodeResourceNotFound {
		return err
	}
	match := absent.FindStringSubmatch(service.Message)
	if match == nil {
		return err
	}
	kind, given := match[1], match[2]
	shown := *service
	if near := e.nearest(kind, given); near != "" {
		shown.Message += " Did you mean " + near + "?"
	}
	shown.Message += " keyturn " + kind + " list lists all."
	return &shown
}

// mostPages is how many pages of names a suggestion reads.
const mostPages = 10

// nearest returns the name of a secret or target that is like a given one; empty for none.
func (e *env) nearest(kind, given string) string {
	client, err := e.connect()
	if err != nil {
		return ""
	}
	list := secretNames
	if kind == "target" {
		list = targetNames
	}
	names, err := list(e.ctx, client)
	if err != nil {
		return ""
	}
	best, least := "", min(4, len(given)/2+1) // edits
	for _, name := range names {
		n := settings.Distance(strings.ToLower(given), strings.ToLower(name))
		if n < least {
			best, least = name, n
		}
	}
	return best
}

func secretNames(ctx context.Context, client *kms.Client) (names []string, err error) {
	for in := (kms.ListSecretsRequest{PageNumber: 1, PageSize: 100}); in.PageNumber <= mostPages; in.PageNumber++ {
		page, err := client.ListSecrets(ctx, &in)
		if err != nil {
			return nil, err
		}
		for _, s := range page.SecretList {
			names = append(names, s.SecretName)
		}
		if len(page.SecretList) < in.PageSize {
			break
		}
	}
	return names, nil
}

func targetNames(ctx context.Context, client *kms.Client) (names []string, err error) {
	in := kms.ListTargetsRequest{MaxResults: 100}
	for range mostPages {
		page, err := client.ListTargets(ctx, &in)
		if err != nil {
			return nil, err
		}
		for _, t := range page.Targets {
			names = append(names, t.TargetName)
		}
		if in.NextToken = page.NextToken; in.NextToken == "" {
			break
		}
	}
	return names, nil
}
