package rabbitmq

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

// member is a node of the cluster as the API shows it.
type member struct {
	Name       string   `json:"name"`
	Running    bool     `json:"running"`
	Partitions []string `json:"partitions"`
	Plugins    []string `json:"enabled_plugins"`
}

const (
	cachePlugin   = "rabbitmq_auth_backend_cache"
	backendPrefix = "rabbitmq_auth_backend_"
)

// checkNodes reports a cluster that may lose a change, and plug-ins with which something else than
// RabbitMQ's own database decides about a login.
func (b *broker) checkNodes(ctx context.Context, f *target.Findings) error {
	var members []member
	err := b.read(ctx, "read the nodes at "+b.name, "/api/nodes", &members)
	if target.ClassOf(err) == target.Denied {
		f.NeedsConsent(consentToNodes,
			"Keyturn cannot see whether the cluster has a partition, on one side of which a change would be "+
				"lost: "+target.TextForCaller(err)+".", b.toRead())
		return nil
	}
	if err != nil {
		return err
	}
	var backends []string
	for _, m := range members {
		if len(m.Partitions) > 0 {
			f.Impossible("partition", fmt.Sprintf("Node %s sees a network partition. A change on one side of it is lost "+
				"when the partition ends.", target.Said(m.Name)), "End the partition first; rabbitmqctl cluster_status shows it.")
		}
		if !m.Running {
			f.Note("node-down", fmt.Sprintf("Node %s of the cluster is down. It takes the change when it starts again.",
				target.Said(m.Name)))
		}
		for _, plugin := range m.Plugins {
			if strings.HasPrefix(plugin, backendPrefix) {
				backends = append(backends, target.Said(plugin))
			}
		}
	}
	slices.Sort(backends)
	noteBackends(f, slices.Compact(backends))
	return nil
}

// noteBackends reports plug-ins that may decide about logins.
func noteBackends(f *target.Findings, backends []string) {
	if i := slices.Index(backends, cachePlugin); i >= 0 {
		f.Note("logins-cached", "If auth_backends names the cache, an old password is accepted until its entry expires "+
			"(auth_cache.cache_ttl, 15 s by default).")
		backends = slices.Delete(backends, i, i+1)
	}
	if len(backends) > 0 {
		f.Note("other-backends", fmt.Sprintf("Other backends may accept a password of the user, which a rotation does not "+
			"change there: %s.", strings.Join(backends, ", ")))
	}
}
