package postgresql

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
)

// consentSCRAM agrees to another form than MD5, or than an unknown one.
const consentSCRAM = "form-changes"

// form is how the server stores a password. A driver without SCRAM can log in to a role whose
// password is stored as MD5, and to no other.
type form struct {
	md5        bool
	iterations int // of SCRAM
}

// formOf reads the form of a stored verifier.
func formOf(stored string) (f form, known bool) {
	if digest, ok := strings.CutPrefix(stored, "md5"); ok && len(digest) == 2*md5.Size {
		return form{md5: true}, true
	}
	_, iterations, ok := parseVerifier(stored)
	return form{iterations: iterations}, ok
}

// form returns the form that the new password gets: as the credential in use, which the same
// application has, or, where that has none, as the role's own password. In an emergency the number
// of iterations is the server's, and MD5 is kept only where the target allows it: the holder of a
// leaked credential may have chosen the form of that one. same reports that the role has the new
// password already.
func (a *attempt) form(ctx context.Context, c target.Change) (kept form, same bool, err error) {
	kept.iterations = a.able.iterations
	if a.able.reads {
		stored, err := a.stored(ctx, c.New.Account)
		if err != nil {
			return kept, false, err
		}
		if same, _ = matches(stored, c.New.Account, c.New.Secret); same {
			return kept, true, nil
		}
		if c.Old.Account != c.New.Account {
			used, err := a.storedIfAny(ctx, c.Old.Account)
			if err != nil {
				return kept, false, err
			}
			stored = cmp.Or(used, stored)
		}
		if found, known := formOf(stored); known {
			kept = found
		}
	}
	after := a.t.afterMD5(c.Emergency)
	if kept.md5 && (after == agreedSCRAM || after == forcedSCRAM) || c.Emergency && !kept.md5 {
		kept = form{iterations: a.able.iterations}
	}
	if n := a.t.config.ScramIterations; n > 0 && !kept.md5 {
		kept.iterations = n
	}
	return kept, false, nil
}

// ofMD5 is what becomes of a password that is stored as MD5.
type ofMD5 uint8

const (
	staysMD5    ofMD5 = iota // the new one is stored as MD5, too
	agreedSCRAM              // the new one is stored for SCRAM, as the operator has agreed
	forcedSCRAM              // the new one is stored for SCRAM, because the target does not allow MD5
	refusedMD5               // the target allows neither
)

// afterMD5 decides what becomes of a password that is stored as MD5.
func (t *pg) afterMD5(emergency bool) ofMD5 {
	switch {
	case slices.Contains(t.consent, consentSCRAM):
		return agreedSCRAM
	case slices.Contains(t.config.RequireAuth, "md5"):
		return staysMD5
	case emergency:
		return forcedSCRAM
	}
	return refusedMD5
}

// storedIfAny returns the verifier of a role; empty for a role without one, or that does not exist.
func (a *attempt) storedIfAny(ctx context.Context, account string) (string, error) {
	stored, err := a.stored(ctx, account)
	if target.ClassOf(err) == target.Denied && err != nil {
		return "", nil
	}
	return stored, err
}

func (f form) verifier(c target.Credential) (string, error) {
	if f.md5 {
		sum := md5.Sum([]byte(c.Secret.Reveal() + c.Account))
		return "md5" + hex.EncodeToString(sum[:]), nil
	}
	return newVerifier(c.Secret, f.iterations)
}

// keptMD5 verifies that the server has stored an MD5 verifier unchanged. A server that no longer
// knows the form takes it for a password.
func (a *attempt) keptMD5(ctx context.Context, account, verifier string) error {
	stored, err := a.stored(ctx, account)
	if err == nil && stored != verifier {
		return target.Denied.Errorf(
			"%s: this server no longer stores MD5; to agree to another form: keyturn rotation configure NAME --consent=%s",
			a.what, consentSCRAM)
	}
	return err
}
