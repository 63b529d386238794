package agent

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// EnvSecret is one secret whose value becomes variables of an environment.
type EnvSecret struct {
	// Name is the secret's.
	Name string
	// Prefix is what the variables begin with; of a value that is no JSON object it is, without _ at its end, the only one.
	Prefix string
}

var prefixPattern = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_]*)?$`)

// ParseEnvSecret reads NAME=PREFIX. NAME alone has the name in capitals, and _, for a prefix.
func ParseEnvSecret(s string) (EnvSecret, error) {
	name, prefix := s, ""
	i := strings.LastIndexByte(s, '=') // a name may hold =, a prefix may not
	if i >= 0 {
		name, prefix = s[:i], s[i+1:]
	}
	var m mistakes
	if checkSecretName(fmt.Sprintf("secret %q", name), name, &m); m.err() != nil {
		return EnvSecret{}, m.err()
	}
	if i < 0 {
		prefix = variable(name) + "_"
	}
	if !prefixPattern.MatchString(prefix) {
		return EnvSecret{}, fmt.Errorf("secret %q: the prefix %q is not letters, digits and _, beginning with no digit", name, prefix)
	}
	return EnvSecret{Name: name, Prefix: prefix}, nil
}

// variable spells a name as those of variables are: AccountName, account-name and account.name as ACCOUNT_NAME.
func variable(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case r == '_' || r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r):
			b.WriteByte('_')
			continue
		case unicode.IsUpper(r) && i > 0 && begins(runes, i):
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// begins reports whether a word begins with the capital at i: after a small letter or a digit, and before a small letter after capitals.
func begins(runes []rune, i int) bool {
	last := runes[i-1]
	if unicode.IsLower(last) || unicode.IsDigit(last) {
		return true
	}
	return unicode.IsUpper(last) && i+1 < len(runes) && unicode.IsLower(runes[i+1])
}

// reserved are variables by which an environment could change what runs, or how, rather than tell it something.
var reserved = []string{"PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_ENV", "PYTHONPATH", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "PERL5LIB", "RUBYOPT"}

// Environment renders the variables of secrets. base is the environment that they are added to: a name which is there already is an error,
// as is one that two members make. The error holds names and no value.
func Environment(base []string, secrets []EnvSecret, values map[string]Value) ([]string, error) {
	from := map[string]string{}
	for _, pair := range base {
		name, _, _ := strings.Cut(pair, "=")
		from[name] = "the environment that keyturn was started with"
	}
	var out []string
	for _, s := range secrets {
		v, ok := values[s.Name]
		if !ok {
			return nil, fmt.Errorf("there is no value of secret %q", s.Name)
		}
		pairs, origin, err := s.variables(v)
		if err != nil {
			return nil, err
		}
		for _, name := range slices.Sorted(maps.Keys(pairs)) {
			if was, taken := from[name]; taken {
				return nil, fmt.Errorf("%s and %s both make the variable %s: choose another prefix", was, origin[name], name)
			}
			from[name] = origin[name]
			out = append(out, name+"="+pairs[name])
		}
	}
	return append(slices.Clone(base), out...), nil
}

// variables makes the variables of one secret, and says where each is from.
func (s EnvSecret) variables(v Value) (pairs, origin map[string]string, err error) {
	pairs, origin = map[string]string{}, map[string]string{}
	all, ok := members(v)
	if !ok {
		name := strings.TrimRight(s.Prefix, "_")
		pairs[name], origin[name] = v.Data.Reveal(), fmt.Sprintf("secret %q", s.Name)
	}
	for _, member := range slices.Sorted(maps.Keys(all)) {
		name, here := s.Prefix+variable(member), fmt.Sprintf("member %q of secret %q", member, s.Name)
		if was, taken := origin[name]; taken {
			return nil, nil, fmt.Errorf("%s and %s both make the variable %s: rename one", was, here, name)
		}
		pairs[name], origin[name] = all[member], here
	}
	for name, value := range pairs {
		switch {
		case name == "" || name[0] >= '0' && name[0] <= '9':
			return nil, nil, fmt.Errorf("%s makes the variable %q, which is no name: give a prefix that begins with a letter", origin[name], name)
		case slices.Contains(reserved, name) || strings.HasPrefix(name, "LD_") || strings.HasPrefix(name, "DYLD_"):
			return nil, nil, fmt.Errorf("%s makes the variable %s, which decides what runs: choose another prefix", origin[name], name)
		case strings.ContainsRune(value, 0):
			return nil, nil, fmt.Errorf("%s has a NUL byte, which no variable can hold", origin[name])
		}
	}
	return pairs, origin, nil
}
