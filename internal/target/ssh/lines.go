package ssh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/target"
)

// paths are the files that list the keys of an account: one string or a list in a configuration.
type paths []string

// UnmarshalJSON reads a path or a list of paths.
func (p *paths) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*p = paths{one}
		return nil
	}
	var several []string
	if json.Unmarshal(data, &several) != nil || len(several) == 0 {
		return errors.New("authorized_keys must be a path or a list of paths")
	}
	*p = several
	return nil
}

// complete returns the paths without the token for the home directory, below which every path
// without a leading slash is.
func (p paths) complete() (paths, error) {
	if len(p) == 0 {
		return paths{".ssh/authorized_keys", ".ssh/authorized_keys2"}, nil
	}
	out := make(paths, len(p))
	for i, path := range p {
		out[i] = strings.TrimPrefix(path, "%h/")
		if out[i] == "" || strings.ContainsAny(out[i], "\x00\r\n") ||
			strings.Contains(strings.ReplaceAll(out[i], "%u", ""), "%") {
			return nil, fmt.Errorf("authorized_keys %q is not a path; of sshd's tokens it may have %%u, and %%h/ first", path)
		}
	}
	return out, nil
}

// of returns the paths of an account.
func (p paths) of(account string) []string {
	out := make([]string, len(p))
	for i, path := range p {
		out[i] = strings.ReplaceAll(path, "%u", account)
	}
	return out
}

// keyLine is a line that lists a key.
type keyLine struct {
	file    string
	options []string
}

// linesOf returns the lines of a file that let a key in; authority reports a line that trusts it as
// a certificate authority.
func linesOf(file, text string, key ssh.PublicKey) (lines []keyLine, authority bool) {
	for l := range strings.Lines(text) {
		public, _, options, _, err := ssh.ParseAuthorizedKey([]byte(l))
		if err != nil || !bytes.Equal(public.Marshal(), key.Marshal()) {
			continue
		}
		if slices.ContainsFunc(options, func(o string) bool { return optionName(o) == "cert-authority" }) {
			authority = true
			continue
		}
		lines = append(lines, keyLine{file: file, options: options})
	}
	return lines, authority
}

// optionName returns the name of an option, which sshd reads without regard to case.
func optionName(option string) string {
	name, _, _ := strings.Cut(strings.ToLower(option), "=")
	return name
}

// has reports whether a line has an option.
func (l keyLine) has(names ...string) bool {
	return slices.ContainsFunc(l.options, func(o string) bool { return slices.Contains(names, optionName(o)) })
}

// limited reports whether the line may shut out a login with its key.
func (l keyLine) limited() bool { return l.has("from", "expiry-time", "verify-required") }

// liveness judges a key by its lines. Their absence proves nothing: sshd may read other files, ask
// a program, or trust a certificate authority.
func liveness(lines []keyLine) target.Liveness {
	if slices.ContainsFunc(lines, func(l keyLine) bool { return !l.limited() }) {
		return target.Live
	}
	return target.NotKnown
}

// keyLines reads the lines of a key in every file of the account.
func (h *host) keyLines(ctx context.Context, s *session, account string, key ssh.PublicKey) ([]keyLine, error) {
	var all []keyLine
	for _, path := range h.AuthorizedKeys.of(account) {
		text, err := s.run(ctx, "read the keys of "+account, h.asKeeper(path, account), readKeys(path, account))
		if err != nil {
			return all, err
		}
		lines, _ := linesOf(path, text, key)
		all = append(all, lines...)
	}
	return all, nil
}

// edit changes a list of keys, and returns how many lines of the old and of the new key it had.
func (h *host) edit(ctx context.Context, s *session, path, account string, e edit) (old, new int, err error) {
	attempt := "change the keys of " + account
	text, err := s.run(ctx, attempt, h.asKeeper(path, account), e.script(path, account))
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(text, &old, &new); err != nil {
		return 0, 0, target.Unknown.Errorf("%s: %s: the host's answer has no counts", s.addr, attempt)
	}
	return old, new, nil
}

// addKey lists the new key beside the old one, with the options of each line of the old one.
func (h *host) addKey(ctx context.Context, s *session, account string, e edit) error {
	found := 0
	all := h.AuthorizedKeys.of(account)
	e.action = "add"
	for _, path := range all {
		old, new, err := h.edit(ctx, s, path, account, e)
		if err != nil {
			return err
		}
		found += old + new
	}
	if found > 0 {
		return nil
	}
	if h.KeyOptions == nil {
		return target.Denied.Errorf(
			"%s: the key in use of %s is in none of %s, so the options that a new line must have are not known; "+
				"name the file in authorized_keys, or set key_options (\"\" for none)",
			s.addr, account, strings.Join(all, ", "),
		)
	}
	e.action, e.options = "append", *h.KeyOptions
	_, _, err := h.edit(ctx, s, all[0], account, e)
	return err
}

// removeKey removes every line of the old key.
func (h *host) removeKey(ctx context.Context, s *session, account string, e edit) error {
	e.action = "remove"
	for _, path := range h.AuthorizedKeys.of(account) {
		if _, _, err := h.edit(ctx, s, path, account, e); err != nil {
			return err
		}
	}
	return nil
}

// shutOut tries one login with a key that was removed, because sshd may accept it by other means.
func (h *host) shutOut(ctx context.Context, c target.Credential) error {
	s, err := h.dialAs(ctx, h.Address, c, c.Secret)
	switch {
	case err == nil, target.ClassOf(err) == target.Admitted:
		if err == nil {
			s.close()
		}
		return target.Denied.Errorf(
			"%s: the old key of %s is in none of %s and still logs in: sshd accepts it by another file "+
				"(AuthorizedKeysFile), a program (AuthorizedKeysCommand) or a certificate; remove it there",
			h.Address, c.Account, strings.Join(h.AuthorizedKeys.of(c.Account), ", "),
		)
	case target.ClassOf(err) == target.Rejected:
		return nil
	}
	return err
}
