package mysql

import (
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// compareHosts reports the hosts at which only one of two names has an account, and which account
// is missing there. reported are accounts of the partner's name that another finding is about.
func (c *checker) compareHosts(names string, members, partners, reported []account) {
	var missing, like []string
	lacks := func(name, from string, without, with []account) {
		for _, a := range with {
			if atHost(without, a.host) || atHost(reported, a.host) {
				continue
			}
			missing = append(missing, shown(name, a.host))
			if areShown(from, a.host) {
				like = append(like, "SHOW CREATE USER "+shown(from, a.host)+";", "SHOW GRANTS FOR "+shown(from, a.host)+";")
			}
		}
	}
	lacks(c.request.Partner, c.request.Current.Account, partners, members)
	lacks(c.request.Current.Account, c.request.Partner, members, partners)
	if len(missing) == 0 {
		return
	}
	first := strings.Join(missing[:min(len(missing), maxDifferences)], ", ")
	if len(missing) > maxDifferences {
		first += ", …"
	}
	fix := "Create the account that is missing, like the other one at that host."
	const show = " These show the other one:"
	if statements, _ := target.WholeStatements(like, " ", fix+show, c.request.Current.Secret); statements != "" {
		fix += show + " " + statements
	}
	c.ask(otherHosts, other(names), names+" exist at different hosts: there is no "+first+
		". An application may be refused after a rotation.", fix, target.Double)
}

// atHost reports whether one of the accounts is at a host.
func atHost(accounts []account, host string) bool {
	return slices.ContainsFunc(accounts, func(a account) bool { return a.host == host })
}

// areShown reports whether a statement for an operator can name an account.
func areShown(name, host string) bool { return fault.IsShown(name) && fault.IsShown(host) }
