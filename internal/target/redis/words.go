package redis

import (
	"fmt"
	"strings"
)

// allow returns the command that gives the administrator rules, for an operator.
func (s *server) allow(rules string) string {
	return "ACL SETUSER " + word(s.admin.Account) + " " + rules
}

// word returns a word of a command as redis-cli reads it.
func word(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:/@%+"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	var out strings.Builder
	for _, b := range []byte(s) {
		switch {
		case b == '"', b == '\\':
			out.WriteString(`\` + string(b))
		case b > ' ' && b <= '~':
			out.WriteByte(b)
		default:
			fmt.Fprintf(&out, `\x%02x`, b)
		}
	}
	return `"` + out.String() + `"`
}
