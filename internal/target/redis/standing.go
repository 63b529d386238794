package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

// defaultUser is the user of every connection that has not logged in.
const defaultUser = "default"

// powers are the commands with which a user changes other users or the server, reads stored
// passwords, or copies all data. Each is in the categories of powerCategories and in no others. A
// command with subcommands lists those that count.
var powers = map[string][]string{
	"acl": {"deluser", "getuser", "list", "load", "setuser"},
	"cluster": {
		"addslots", "addslotsrange", "delslots", "delslotsrange", "failover", "flushslots", "forget", "meet",
		"replicate", "reset", "setslot",
	},
	"config":    {"get", "rewrite", "set"},
	"debug":     nil,
	"failover":  nil,
	"module":    {"load", "loadex", "unload"},
	"monitor":   nil,
	"psync":     nil,
	"replicaof": nil,
	"shutdown":  nil,
	"slaveof":   nil,
	"sync":      nil,
}

var powerCategories = []string{"admin", "dangerous", "slow"}

// otherCategories hold none of the powers. A category that is in neither list may hold one.
var otherCategories = []string{
	"bitmap", "blocking", "connection", "fast", "geo", "hash", "hyperloglog", "keyspace", "list", "pubsub", "read",
	"scripting", "set", "sortedset", "stream", "string", "transaction", "write",
	"bloom", "cms", "cuckoo", "json", "search", "tdigest", "timeseries", "topk",
}

// Standing reports what a user is at any of the nodes, by the rules of its ACL. A user that is
// switched off keeps its standing.
func (s *server) Standing(ctx context.Context, account string) (target.Standing, error) {
	if account == "" {
		account = defaultUser
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	nodes, err := s.connect(ctx, s.admin.Secret)
	defer closeAll(nodes)
	if err != nil {
		return target.Standing{}, err
	}
	standing := target.Standing{Administrator: account == s.admin.Account}
	if account == defaultUser {
		standing.Privileged = "is the user of every connection that has not logged in"
	}
	for _, n := range nodes {
		why, err := n.powerOf(ctx, account)
		if target.ClassOf(err) == target.Denied {
			return target.Standing{}, target.Failed(
				target.Denied,
				"",
				err.Error()+"; the administrator must be able to "+
					"read users: ACL SETUSER "+s.admin.Account+" +acl|getuser",
				s.admin.Secret,
			)
		}
		if err != nil {
			return target.Standing{}, err
		}
		if standing.Privileged == "" {
			standing.Privileged = why
		}
	}
	return standing, nil
}

// powerOf says why a user is privileged at a node.
func (n *node) powerOf(ctx context.Context, account string) (string, error) {
	attempt := fmt.Sprintf("read the rules of user %q", account)
	reply, err := n.do(ctx, attempt, "ACL", "GETUSER", account)
	if err != nil || reply == nil {
		return "", err
	}
	rules, ok := rulesOf(reply)
	if !ok {
		return "", target.Failed(
			target.Denied, "", n.addr+": "+attempt+": the server's answer has no rules for commands",
		)
	}
	for _, r := range rules {
		if command := power(r); command != "" {
			return "may run " + command, nil
		}
	}
	return "", nil
}

// rulesOf returns the rules for commands of a user and of its selectors (Redis 7). Each of these
// permits by itself.
func rulesOf(reply any) (rules []string, ok bool) {
	fields, _ := reply.([]any)
	for i := 0; i+1 < len(fields); i += 2 {
		switch fields[i] {
		case "commands":
			r, isText := fields[i+1].(string)
			if !isText {
				return nil, false
			}
			rules, ok = append(rules, r), true
		case "selectors":
			selectors, isList := fields[i+1].([]any)
			if !isList {
				return nil, false
			}
			for _, s := range selectors {
				inner, found := rulesOf(s)
				if !found {
					return nil, false
				}
				rules = append(rules, inner...)
			}
		}
	}
	return rules, ok
}

// power applies rules in their order, as the server does, and returns the first of the powers that
// is permitted then, as an administrator would write it. It errs on the side of permission where a
// rule is not known.
func power(rules string) string {
	permitted := map[string]bool{}
	every := func(allowed bool) {
		for command := range powers {
			permit(permitted, command, "", allowed)
		}
	}
	for _, rule := range strings.Fields(strings.ToLower(rules)) {
		switch rule {
		case "allcommands":
			rule = "+@all"
		case "nocommands":
			rule = "-@all"
		}
		allowed := rule[0] == '+'
		name := rule[1:]
		if !allowed && rule[0] != '-' {
			every(true)
			continue
		}
		if category, ok := strings.CutPrefix(name, "@"); ok {
			holds := category == "all" || slices.Contains(powerCategories, category)
			if holds || allowed && !slices.Contains(otherCategories, category) {
				every(allowed)
			}
			continue
		}
		command, subcommand, _ := strings.Cut(name, "|")
		permit(permitted, command, subcommand, allowed)
	}
	var found []string
	for name, allowed := range permitted {
		if allowed {
			found = append(found, strings.ToUpper(strings.ReplaceAll(name, "|", " ")))
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// permit notes that a command, or one subcommand of it, is permitted or not.
func permit(permitted map[string]bool, command, subcommand string, allowed bool) {
	subcommands, ok := powers[command]
	switch {
	case !ok:
	case subcommands == nil:
		// Redis 6 can permit a command with one first argument only. Such a permission counts; to
		// take one away from a command leaves the others.
		permitted[command] = allowed || permitted[command] && subcommand != ""
	case subcommand == "":
		for _, s := range subcommands {
			permitted[command+"|"+s] = allowed
		}
	case slices.Contains(subcommands, subcommand):
		permitted[command+"|"+subcommand] = allowed
	}
}

var _ target.Guarded = (*server)(nil)
