package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// defaultUser is the user of every connection that has not logged in.
const defaultUser = "default"

// powers has the commands with which a user changes other users or the server, reads stored
// passwords, or copies all data. Each is in categories of powerCategories and in no others. For a
// command with subcommands it lists the ones that count.
var powers = map[string][]string{
	"acl": {"deluser", "getuser", "list", "load", "save", "setuser"},
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

// otherCategories lists categories without any of the powers. A category that is in neither list
// may have one.
var otherCategories = []string{
	"bitmap", "blocking", "connection", "fast", "geo", "hash", "hyperloglog", "keyspace", "list", "pubsub", "read",
	"scripting", "set", "sortedset", "stream", "string", "transaction", "write",
	"bloom", "cms", "cuckoo", "json", "search", "tdigest", "timeseries", "topk",
}

// Standing reports the standing of a user by the rules of its ACL: one node at which it is
// privileged is enough. A user that is switched off keeps its standing.
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
		if err != nil {
			advice := "the administrator must be able to read users: " + s.allow("+acl|getuser")
			return target.Standing{}, target.WithAdvice(err, advice, s.admin.Secret)
		}
		if standing.Privileged == "" {
			standing.Privileged = why
		}
	}
	return standing, nil
}

// powerOf says why a user is privileged at a node.
func (n *node) powerOf(ctx context.Context, account string) (string, error) {
	attempt := fmt.Sprintf("read the rules of user %s", fault.Quoted(account))
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

// rulesOf returns the rules for commands of a user and of each of its selectors (Redis 7). A
// command is permitted if one of these lists permits it.
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

// power returns the first of the powers that rules permit, in the spelling of a command line.
func power(rules string) string {
	var found []string
	for name, allowed := range permitted(rules) {
		if allowed {
			found = append(found, inWords(name))
		}
	}
	slices.Sort(found)
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// permits reports whether one of several lists of rules permits a power.
func permits(lists []string, name string) bool {
	return slices.ContainsFunc(lists, func(rules string) bool { return permitted(rules)[name] })
}

// inWords returns the spelling of a command line.
func inWords(name string) string { return strings.ToUpper(strings.ReplaceAll(name, "|", " ")) }

// permitted applies rules in their order, as the server does. A rule that it does not know counts
// as a permission.
func permitted(rules string) map[string]bool {
	permitted := map[string]bool{}
	for _, rule := range strings.Fields(strings.ToLower(rules)) {
		apply(permitted, rule)
	}
	return permitted
}

// apply applies one rule.
func apply(permitted map[string]bool, rule string) {
	every := func(allowed bool) {
		for command := range powers {
			permit(permitted, command, "", allowed)
		}
	}
	switch rule {
	case "allcommands":
		rule = "+@all"
	case "nocommands":
		rule = "-@all"
	}
	allowed, name := rule[0] == '+', rule[1:]
	category, isCategory := strings.CutPrefix(name, "@")
	switch {
	case !allowed && rule[0] != '-':
		every(true)
	case isCategory:
		hasPowers := category == "all" || slices.Contains(powerCategories, category)
		if hasPowers || allowed && !slices.Contains(otherCategories, category) {
			every(allowed)
		}
	default:
		command, subcommand, _ := strings.Cut(name, "|")
		permit(permitted, command, subcommand, allowed)
	}
}

// permit records whether a command, or one subcommand of it, is permitted.
func permit(permitted map[string]bool, command, subcommand string, allowed bool) {
	subcommands, ok := powers[command]
	switch {
	case !ok:
	case subcommands == nil:
		// Redis 6 can permit a command with one first argument only. Such a permission counts.
		// Forbidding one first argument leaves the others permitted.
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
