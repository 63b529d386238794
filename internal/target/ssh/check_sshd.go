package ssh

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
)

// daemon reads the settings of sshd for an account; nil where the administrator may not.
func (h *host) daemon(ctx context.Context, s *session, account string) (map[string]string, error) {
	text, err := s.run(ctx, "read the settings of sshd", asRoot, script(`
sshd=$(command -v sshd) || fail "sshd is not found"
[ -z "$config" ] || set -- -f "$config"
"$sshd" -T "$@" -C "user=$account,host=localhost,addr=127.0.0.1" || fail "sshd does not print its settings"
`, "account", account, "config", h.SSHDConfig))
	switch {
	case target.ClassOf(err) == target.Denied:
		return nil, nil
	case err != nil:
		return nil, err
	}
	settings := map[string]string{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		settings[strings.ToLower(name)] = value
	}
	return settings, nil
}

// checkAlgorithms reports that sshd would not accept a key of the type of the new one.
func (h *host) checkAlgorithms(f *target.Findings, settings map[string]string, c target.Credential) {
	keyType := h.KeyType
	if keyType == "" {
		keyType, _ = formOf(c)
	}
	const fix = "Set key_type of the target to a type that sshd accepts."
	accepted := cmp.Or(settings["pubkeyacceptedalgorithms"], settings["pubkeyacceptedkeytypes"])
	takes := func(algorithm string) bool {
		return slices.ContainsFunc(strings.Split(accepted, ","), func(pattern string) bool {
			ok, err := path.Match(pattern, algorithm)
			return ok && err == nil
		})
	}
	if accepted != "" && !slices.ContainsFunc(algorithmsOf(keyType), takes) {
		f.Impossible("key-type-refused", fmt.Sprintf(
			"sshd accepts no key of the type %s, which the new one has (PubkeyAcceptedAlgorithms).", keyType,
		), fix)
	}
	var bits int
	least, err := strconv.Atoi(settings["requiredrsasize"])
	if _, isRSA := fmt.Sscanf(keyType, "rsa-%d", &bits); err == nil && isRSA == nil && bits < least {
		f.Impossible("key-type-refused", fmt.Sprintf(
			"sshd accepts RSA keys of %d bits and more (RequiredRSASize); the new one has %d.", least, bits,
		), fix)
	}
}

// algorithmsOf returns the algorithms of signatures by keys of a type.
func algorithmsOf(keyType string) []string {
	name, size, _ := strings.Cut(keyType, "-")
	switch name {
	case "rsa":
		return []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}
	case "ecdsa":
		return []string{"ecdsa-sha2-nistp" + size}
	}
	return []string{ssh.KeyAlgoED25519}
}

// checkDaemon reports where sshd finds credentials besides the files of the target.
func (h *host) checkDaemon(
	ctx context.Context, s *session, f *target.Findings, settings map[string]string, lines []keyLine, key askedKey,
) error {
	if settings == nil {
		f.Note("sshd-not-read", "The administrator cannot read the settings of sshd (sshd -T needs root), so other places "+
			"of keys are not known.")
		return nil
	}
	set := func(name string) bool { return settings[name] != "" && settings[name] != "none" }
	if set("authorizedkeyscommand") {
		f.Note("keys-by-program", "sshd also accepts the keys that a program returns (AuthorizedKeysCommand).")
	}
	if set("trustedusercakeys") {
		f.Note("trusted-authority", "sshd trusts a certificate authority (TrustedUserCAKeys); a rotation does not end what "+
			"its certificates permit.")
	}
	if set("forcecommand") && *h.config.Check != "" {
		f.Impossible("forced-command", "sshd runs one command for every login of the account (ForceCommand), which the "+
			"check of a login would run.", `Set check to "" in the target.`)
	}
	if !set("authorizedkeysfile") {
		return nil
	}
	return h.checkOtherFiles(ctx, s, f, strings.Fields(settings["authorizedkeysfile"]), lines, key)
}

// checkOtherFiles looks for the key in files that sshd reads and the target does not name, and for
// files that the target names and sshd does not read.
func (h *host) checkOtherFiles(
	ctx context.Context, s *session, f *target.Findings, files []string, lines []keyLine, key askedKey,
) error {
	read, err := paths(files).complete()
	if err != nil {
		return nil // a path with tokens that are not followed here
	}
	named := h.AuthorizedKeys.of(f.Account)
	inHome := "/" + f.Account + "/"
	reads := func(file string) bool {
		return slices.ContainsFunc(read.of(f.Account), func(r string) bool {
			return r == file || strings.HasPrefix(r, "/") && strings.HasSuffix(r, inHome+file)
		})
	}
	if len(lines) > 0 && !slices.ContainsFunc(lines, func(l keyLine) bool { return reads(l.file) }) {
		f.Impossible("file-not-read", fmt.Sprintf(
			"The key is listed in %s, and sshd reads %s.", lines[0].file, fault.Foreign(strings.Join(read.of(f.Account), ", ")),
		), "Correct authorized_keys of the target.")
	}
	for _, file := range read.of(f.Account) {
		if slices.Contains(named, file) {
			continue
		}
		text, err := s.run(ctx, "read the keys of "+f.Account, h.asKeeper(file, f.Account), readKeys(file, f.Account))
		if target.ClassOf(err) == target.Denied {
			f.Outlasting("file-not-read", "The administrator cannot read "+fault.Foreign(file)+", which sshd reads.",
				"After a leak, remove the keys there that are not the application's.")
			continue
		}
		if err != nil {
			return err
		}
		if found, _ := linesOf(file, text, key); len(found) > 0 {
			f.Impossible("key-elsewhere",
				fmt.Sprintf("The %s is also in %s, which the target does not name.", key.called, fault.Foreign(file)),
				"Add the file to authorized_keys of the target.")
			f.LastOutlasts()
		}
	}
	return nil
}
