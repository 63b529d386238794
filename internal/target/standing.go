package target

import (
	"context"
	"strings"
)

// Standing says how an account at its target differs from an ordinary account. The server refuses
// to rotate such an account for a caller who is not entitled to it.
type Standing struct {
	// Administrator reports that the target's own administrator logs in as this account, whatever
	// spelling of its name was given.
	Administrator bool
	// Privileged says why the account can change other accounts or the system itself, such as
	// "is a superuser"; empty for an ordinary account. It continues a sentence that begins with
	// the account's name, and ends without a period.
	Privileged string
}

// Guarded is a target that can report the standing of an account. For any other target the server
// compares names: see [SameAccount].
type Guarded interface {
	// Standing reports what the account is now. It changes nothing and never logs in as the
	// account. An account that does not exist is ordinary. Errors have the classes of [Target].
	Standing(ctx context.Context, account string) (Standing, error)
}

// SameAccount reports whether two names can be spellings of one account at some system: it ignores
// case, quotes, surrounding space, and a host part after the last "@" of either or both. It errs on
// the side of equality, so it serves for refusing only.
func SameAccount(a, b string) bool {
	a, b = plainAccount(a), plainAccount(b)
	bareA, bareB := bareAccount(a), bareAccount(b)
	return a == b || a == bareB || bareA == b || bareA == bareB
}

func plainAccount(name string) string {
	return strings.ToLower(strings.TrimSpace(strings.NewReplacer("'", "", "`", "", `"`, "").Replace(name)))
}

// bareAccount returns a plain name without its host part.
func bareAccount(name string) string {
	if i := strings.LastIndexByte(name, '@'); i > 0 {
		name = strings.TrimSpace(name[:i])
	}
	return name
}
