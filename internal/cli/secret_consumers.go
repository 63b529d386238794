package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/keyturn/keyturn/kms"
)

type secretConsumers struct {
	Name   string `arg:"" help:"Name or ARN of the secret."`
	Behind bool   `help:"Only consumers that hold another version than the current one."`
}

// Run lists the consumers, those behind first, and of them the one seen last.
func (c *secretConsumers) Run(e *env) error {
	client, err := e.connect()
	if err != nil {
		return err
	}
	in := &kms.ListSecretConsumersRequest{SecretName: c.Name, Behind: c.Behind}
	all := &kms.ListSecretConsumersResponse{Consumers: []kms.SecretConsumer{}}
	for {
		page, err := client.ListSecretConsumers(e.ctx, in)
		if err != nil {
			return err
		}
		all.SecretName, all.VersionID, all.RequestID = page.SecretName, page.VersionID, page.RequestID
		all.Consumers = append(all.Consumers, page.Consumers...)
		if in.NextToken = page.NextToken; in.NextToken == "" {
			break
		}
	}
	slices.SortFunc(all.Consumers, func(a, b kms.SecretConsumer) int {
		if a.Behind != b.Behind {
			return map[bool]int{true: -1, false: 1}[a.Behind]
		}
		return b.LastSeen.Compare(a.LastSeen)
	})
	if e.json() {
		return printResponse(e.stdout, all)
	}
	fmt.Fprintf(e.stdout, "Current version: %s\n", all.VersionID)
	return printConsumers(e.stdout, all.Consumers)
}

// printConsumers lists consumers, with whence it is known what they use.
func printConsumers(w io.Writer, list []kms.SecretConsumer) error {
	t := newTable("CONSUMER", "PRINCIPAL", "FROM", "USES", "OLDEST", "BEHIND", "KNOWN BY", "SEEN")
	for _, u := range list {
		behind := ""
		if u.Behind {
			behind = "yes"
		}
		evidence := map[string]string{kms.EvidenceAcknowledged: "its word", kms.EvidenceInferred: "its reads"}[u.Evidence]
		t.row(u.Consumer, u.Principal, u.Source, u.VersionID, u.OldestVersionID, behind, evidence, when(u.LastSeen))
	}
	if len(list) == 0 {
		return t.write(w)
	}
	return t.withoutEmpty().write(w)
}
