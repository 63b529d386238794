package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// key is a line of the file: the account in quotation marks, a space, the hash, and, where the key
// may not do everything that its account may, a space and its rights, such as
// scope=read;from=10.0.0.0/8. The rights belong to the key, so a new one gets them.
type key struct{ account, hash, rights string }

// noKey is the hash of an account that has no key now: the line keeps the rights for the next one.
const noKey = "-"

type keys []key

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

func (k keys) find(c credential) int {
	hash := hashOf(c.Secret)
	return slices.IndexFunc(k, func(l key) bool { return l.account == c.Account && l.hash == hash })
}

func (k keys) findSecret(secret string) int {
	hash := hashOf(secret)
	return slices.IndexFunc(k, func(l key) bool { return l.hash == hash })
}

// rights returns what the new key may do: what an earlier attempt gave it, or what the old key may.
// Without either, all keys of the account must have the same rights; with the strategy double the
// account is the one that is not in use.
func (k keys) rights(in request) (rights string, ok bool) {
	if i := k.find(in.New); i >= 0 {
		return k[i].rights, true
	}
	if i := k.find(in.Old); i >= 0 && in.Old.Account == in.New.Account {
		return k[i].rights, true
	}
	list := k.rightsOf(in.New.Account)
	if len(list) == 0 {
		return "", true
	}
	return list[0], len(list) == 1
}

// rightsOf returns the different rights of the keys of an account.
func (k keys) rightsOf(account string) (list []string) {
	for _, l := range k {
		if l.account == account && !slices.Contains(list, l.rights) {
			list = append(list, l.rights)
		}
	}
	return list
}

// set adds the new key: with overlap beside the others of its account, otherwise as the only one.
// It reports false if its rights are not known.
func (k keys) set(in request) (keys, bool) {
	rights, ok := k.rights(in)
	if !ok {
		return k, false
	}
	added := key{account: in.New.Account, hash: hashOf(in.New.Secret), rights: rights}
	return append(slices.DeleteFunc(k, func(l key) bool {
		return l.account == added.account && (in.Strategy != "overlap" || l.hash == added.hash)
	}), added), true
}

// retire removes exactly the old key: another one that the account may have by now stays. With
// double its rights wait for the next key.
func (k keys) retire(in request) keys {
	i := k.find(in.Old)
	switch {
	case i < 0:
	case in.Strategy == "double":
		k[i].hash = noKey
	default:
		k = slices.Delete(k, i, i+1)
	}
	return k
}

// finding is what the step check reports.
type finding struct {
	Code    string `json:"code"`
	Verdict string `json:"verdict"`
	Account string `json:"account"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// check reports what hangs on the key in use, and what a rotation would do to other keys.
func (k keys) check(in request) (list []finding) {
	i := k.find(in.Old)
	if i < 0 {
		return []finding{{"no-such-key", "impossible", in.Account, "The file of keys does not have the key in use.",
			"Add its hash."}}
	}
	if k[i].rights != "" {
		list = append(list, finding{"rights-kept", "note", in.Account,
			"The key in use has rights of its own, which a new key gets: " + k[i].rights + ".", ""})
	}
	others := 0
	for j, l := range k {
		if l.account == in.Account && j != i && l.hash != noKey {
			others++
		}
	}
	switch {
	case others > 0 && in.Strategy == "overlap":
		list = append(list, finding{"other-keys", "note", in.Account,
			fmt.Sprintf("The account has %d other keys, which a rotation leaves alone.", others), ""})
	case others > 0 && in.Strategy == "single":
		list = append(list, finding{"other-keys-go", "needs-consent", in.Account,
			fmt.Sprintf("The account has %d other keys, which a rotation removes.", others), "Use the strategy overlap."})
	}
	switch rights := k.rightsOf(in.Partner); {
	case in.Partner == "":
	case len(rights) == 0:
		list = append(list, finding{"no-such-account", "impossible", in.Partner,
			"The file of keys does not have the other account.", "Add a key of it."})
	case len(rights) > 1 || rights[0] != k[i].rights:
		list = append(list, finding{"partner-differs", "needs-consent", in.Partner,
			"The account has other rights than the one in use.", "Give both the same rights."})
	}
	return list
}

func (s *service) load() (keys, error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var list keys
	for line := range strings.Lines(string(b)) {
		quoted, cut := strconv.QuotedPrefix(line)
		account, bad := strconv.Unquote(quoted)
		words := strings.SplitN(strings.TrimSpace(strings.TrimPrefix(line, quoted)), " ", 2)
		if cut != nil || bad != nil || words[0] == "" {
			return nil, errors.New("a line of the file of keys is not one")
		}
		list = append(list, key{account, words[0], strings.Join(words[1:], "")})
	}
	return list, err
}

// save replaces the file atomically: a reader sees either the previous keys or the new ones.
func (s *service) save(list keys) reply {
	var text strings.Builder
	for _, l := range list {
		fmt.Fprintln(&text, strings.TrimSpace(strconv.Quote(l.account)+" "+l.hash+" "+l.rights))
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), ".keys")
	if err == nil {
		_, err = io.WriteString(f, text.String())
		err = errors.Join(err, f.Sync(), f.Close())
		if err == nil {
			err = os.Rename(f.Name(), s.path)
		}
	}
	if err != nil {
		if f != nil {
			_ = os.Remove(f.Name())
		}
		return reply{Result: "unavailable", Code: "storage", Message: "the file of keys cannot be written"}
	}
	return reply{Result: "ok"}
}
