package agent

import (
	"errors"
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
	// Prefix is what the variables begin with; of a value that is no JSON object it is, without _ at
	// its end, the only one.
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
		return EnvSecret{}, fmt.Errorf("secret %q: the prefix %q is not letters, digits and _, beginning with no digit", name,
			prefix)
	}
	return EnvSecret{Name: name, Prefix: prefix}, nil
}

// variable spells a name in the style of variables: AccountName, account-name and account.name
// become ACCOUNT_NAME.
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

// begins reports whether a word begins with the capital at i: after a small letter or a digit, and
// before a small letter after capitals.
func begins(runes []rune, i int) bool {
	last := runes[i-1]
	if unicode.IsLower(last) || unicode.IsDigit(last) {
		return true
	}
	return unicode.IsUpper(last) && i+1 < len(runes) && unicode.IsLower(runes[i+1])
}

// reserved are variables that decide what runs, or how. No secret makes one, whatever the operator
// names.
var reserved = []string{
	"PATH", "HOME", "SHELL", "SHELLOPTS", "BASHOPTS", "IFS", "ENV", "BASH_ENV", "CDPATH",
	"PROMPT_COMMAND", "PS0", "PS1", "PS2", "PS3", "PS4", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP",
	"PYTHONWARNINGS", "NODE_OPTIONS", "NODE_PATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS",
	"JDK_JAVA_OPTIONS", "PERL5LIB", "PERL5OPT", "RUBYOPT", "RUBYLIB", "GCONV_PATH", "OPENSSL_CONF",
	"GIT_SSH_COMMAND", "GIT_ASKPASS", "DOTNET_STARTUP_HOOKS", "BROWSER", "EDITOR", "VISUAL", "PAGER",
}

// families are beginnings of names by which runtimes, loaders and tools are steered. The operator
// must name such a variable, because a prefix alone would let the writer of the secret choose among
// them. Letter case is ignored.
var families = []string{
	"_JAVA_", "ALL_PROXY", "ASAN_", "BASH", "CARGO", "CLASSPATH", "COMPLUS_", "COR_", "CORECLR_",
	"CURL_", "DOTNET_", "FTP_PROXY", "GCONV", "GEM_", "GETCONF", "GIT_", "GLIBC_", "GODEBUG", "GOFLAGS",
	"GRADLE_", "GTK_", "HOSTALIASES", "HTTP_PROXY", "HTTPS_PROXY", "JAVA_", "JDK_", "LESS",
	"LIBRARY_PATH", "LOCALDOMAIN", "LOCPATH", "LUA_", "MALLOC_", "MANPAGER", "MAVEN_", "NLSPATH",
	"NODE_", "NO_PROXY", "NPM_", "OPENSSL_", "PERL", "PHP", "PIP_", "PYTHON", "QT_",
	"REQUESTS_CA_BUNDLE", "RES_OPTIONS", "RUBY", "RUST", "SSH_", "SSLKEYLOGFILE", "SSL_CERT_", "SUDO_",
	"TERMINFO", "TMPDIR", "TZDIR", "UBSAN_", "XDG_", "ZDOTDIR",
}

// loaders are beginnings that no secret makes, whatever the operator names: the dynamic linker's.
var loaders = []string{"LD_", "DYLD_"}

func hasPrefixOf(list []string, name string) bool {
	return slices.ContainsFunc(list, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// CheckAllowed refuses a list of variables that no secret could make, and secrets without a prefix
// when there is no list.
func CheckAllowed(secrets []EnvSecret, allowed []string) error {
	var errs []error
	for _, name := range allowed {
		upper := strings.ToUpper(name)
		switch {
		case name == "" || !prefixPattern.MatchString(name):
			errs = append(errs, fmt.Errorf("--allow: %q is not the name of a variable", name))
		case slices.Contains(reserved, upper) || hasPrefixOf(loaders, upper):
			errs = append(errs, fmt.Errorf("--allow: %s decides what runs, so no secret may set it", name))
		}
	}
	for _, s := range secrets {
		if s.Prefix == "" && len(allowed) == 0 {
			errs = append(errs, fmt.Errorf("--secret %s= has an empty prefix: name the variables that it may set with --allow "+
				"NAME,…, or give a prefix", s.Name))
		}
	}
	return errors.Join(errs...)
}

// Environment adds the variables of secrets to the environment base. It fails when a name is in
// base already, when two members make the same name, and when no secret makes a name of allowed. A
// secret without a prefix makes only the variables in allowed; a secret with a prefix needs allowed
// only for names that steer runtimes and tools. The error contains names and no value.
func Environment(base []string, secrets []EnvSecret, allowed []string, values map[string]Value) ([]string, error) {
	if err := CheckAllowed(secrets, allowed); err != nil {
		return nil, err
	}
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
		pairs, origin, err := s.variables(v, allowed)
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
	for _, name := range allowed {
		if !slices.ContainsFunc(out, func(pair string) bool { return strings.HasPrefix(pair, name+"=") }) {
			return nil, fmt.Errorf("no secret makes the variable %s, which --allow names", name)
		}
	}
	return append(slices.Clone(base), out...), nil
}

// variables makes the variables of one secret, and says where each is from.
func (s EnvSecret) variables(v Value, allowed []string) (pairs, origin map[string]string, err error) {
	pairs, origin = map[string]string{}, map[string]string{}
	all, ok := members(v)
	if !ok {
		name := strings.TrimRight(s.Prefix, "_")
		pairs[name], origin[name] = v.Data.Reveal(), fmt.Sprintf("secret %q", s.Name)
	}
	for _, member := range slices.Sorted(maps.Keys(all)) {
		name, here := s.Prefix+variable(member), fmt.Sprintf("member %q of secret %q", member, s.Name)
		if s.Prefix == "" && !slices.Contains(allowed, name) {
			continue
		}
		if was, taken := origin[name]; taken {
			return nil, nil, fmt.Errorf("%s and %s both make the variable %s: rename one", was, here, name)
		}
		pairs[name], origin[name] = all[member], here
	}
	for name, value := range pairs {
		upper := strings.ToUpper(name)
		switch {
		case name == "" || name[0] >= '0' && name[0] <= '9':
			return nil, nil, fmt.Errorf("%s makes the variable %q, which is no name: give a prefix that begins with a letter",
				origin[name], name)
		case slices.Contains(reserved, upper) || hasPrefixOf(loaders, upper):
			return nil, nil, fmt.Errorf("%s makes the variable %s, which decides what runs: choose another prefix", origin[name],
				name)
		case hasPrefixOf(families, upper) && !slices.Contains(allowed, name):
			return nil, nil, fmt.Errorf("%s makes the variable %s, which may decide what runs: choose another prefix, or name "+
				"it with --allow", origin[name], name)
		case strings.ContainsRune(value, 0):
			return nil, nil, fmt.Errorf("%s has a NUL byte, which no variable can hold", origin[name])
		}
	}
	return pairs, origin, nil
}
