package explore

import "github.com/keyturn/keyturn/internal/target"

// Scopes are what is explored of every strategy and sort of target: each a choice of what goes
// wrong, at most a number of times in one history, with a number of things that people ask for.
func Scopes(most, people int) []Config {
	var list []Config
	for _, strategy := range []target.Strategy{target.Single, target.Overlap, target.Double} {
		for _, inspect := range []bool{true, false} {
			base := Config{Name: string(strategy) + ", ", Strategy: strategy, Inspect: inspect, Most: most, People: people}
			if !inspect {
				base.Name += "by login, "
			}
			add := func(what string, f Fault, change func(*Config)) {
				c := base
				c.Name, c.Faults = c.Name+what, f
				if change != nil {
					change(&c)
				}
				list = append(list, c)
			}
			add("faults", Crash|Lost|Down|Refuse|Lie|Lag|StoreError|Gone, nil)
			add("late requests", Crash|Lost|Late|Down|StoreError, nil)
			add("two engines", Crash|Lost|Late|StoreError|SecondEngine, nil)
			add("change by hand", Crash|Lost|Down|Hand, nil)
			add("restored backup", Lost|Restore, nil)
			add("clock", Crash|Lost|Down|Lag|Jump, nil)
			add("near the bounds", Crash|Lost|Late|Down|Refuse|Lie|Lag|StoreError|Hand, func(c *Config) { c.Worn = true })
			add("moods", Crash|Lost|Moody, nil)
			add("refused administrator", Crash|Lost|Moody|Locked, nil)
			if strategy != target.Single {
				add("replicas", Crash|Lost|Behind, nil)
				add("consumers", Crash|Lost|Down|StoreError, func(c *Config) { c.Holder = true })
			}
			if inspect {
				add("takes back", Crash|Lost|Late|Down|StoreError, func(c *Config) { c.Revert = true })
			}
		}
	}
	return list
}

// In is the scope in which the mutation is seen, with the mutation.
func (m Mutation) In() Config {
	for _, c := range Scopes(m.Most, m.People) {
		if c.Name == m.Scope {
			c.Mutation = &m
			return c
		}
	}
	panic("no scope " + m.Scope)
}
