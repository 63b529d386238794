package rabbitmq

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rest"
	"github.com/keyturn/keyturn/sensitive"
)

const (
	algorithmSHA256 = "rabbit_password_hashing_sha256"
	algorithmSHA512 = "rabbit_password_hashing_sha512"
	algorithmMD5    = "rabbit_password_hashing_md5" // known and never made
	saltSize        = 4                             // RabbitMQ's; the hash is Base64 of salt and digest
)

// user is a user as the API shows it.
type user struct {
	Name      string          `json:"name"`
	Hash      string          `json:"password_hash"`
	Algorithm string          `json:"hashing_algorithm"`
	Tags      json.RawMessage `json:"tags"` // a list, before version 3.9 a string; sent back unchanged
	Limits    map[string]int  `json:"limits"`
}

// algorithms lists those in which a password can be compared with its hash.
var algorithms = []string{algorithmSHA256, algorithmSHA512, algorithmMD5}

// consentToHash is the consent to replace a hash of an algorithm in which none can be made here.
const consentToHash = "hash-changes"

// keeps reports whether a rotation can make a hash in the algorithm of the user's.
func (u user) keeps() bool {
	return u.Algorithm == algorithmSHA256 || u.Algorithm == algorithmSHA512 || u.Algorithm == "" && u.Hash == ""
}

// algorithm returns the algorithm of the next hash: the user's, if a hash can be made in it.
func (u user) algorithm() string {
	if u.Algorithm == algorithmSHA512 {
		return algorithmSHA512
	}
	return algorithmSHA256
}

// accepts says whether the stored hash belongs to the password.
func (u user) accepts(password sensitive.Value) target.Liveness {
	if u.Hash == "" {
		return target.Dead
	}
	stored, err := base64.StdEncoding.DecodeString(u.Hash)
	if err != nil || len(stored) < saltSize {
		return target.NotKnown
	}
	if !slices.Contains(algorithms, u.Algorithm) {
		return target.NotKnown
	}
	if subtle.ConstantTimeCompare(digest(u.Algorithm, stored[:saltSize], password), stored[saltSize:]) == 1 {
		return target.Live
	}
	return target.Dead
}

// digest returns the digest of a password with a salt.
func digest(algorithm string, salt []byte, password sensitive.Value) []byte {
	salted := append(bytes.Clone(salt), password.Reveal()...)
	switch algorithm {
	case algorithmMD5:
		sum := md5.Sum(salted)
		return sum[:]
	case algorithmSHA512:
		sum := sha512.Sum512(salted)
		return sum[:]
	default:
		sum := sha256.Sum256(salted)
		return sum[:]
	}
}

func newHash(algorithm string, password sensitive.Value) (string, error) {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(append(salt, digest(algorithm, salt, password)...)), nil
}

// errNoUser is in the chain of an error that says that RabbitMQ's own database has no such user.
var errNoUser = errors.New("no such user")

type noUser struct{ said *target.Error }

func (n noUser) Error() string   { return n.said.Error() }
func (n noUser) Unwrap() []error { return []error{n.said, errNoUser} }

// user reads the user of a credential. others are credentials that must not appear in errors.
func (b *broker) user(
	ctx context.Context, what string, of target.Credential, others ...target.Credential,
) (user, error) {
	secrets := b.secrets(append(others, of))
	got, err := b.call(ctx, http.MethodGet, what, of.Account, nil, secrets)
	if err != nil {
		return user{}, err
	}
	var u user
	switch {
	case got.Status == http.StatusNotFound && got.JSON:
		return user{}, noUser{
			target.Failed(
				target.Denied, rest.Code(got.Status), what+": there is no such user in RabbitMQ's own database",
				secrets...,
			),
		}
	case got.Status == http.StatusUnauthorized:
		return user{}, target.AsAdmin(answered(target.Rejected, what, got, secrets))
	case got.Status == http.StatusForbidden:
		return user{}, answered(target.Denied, what, got, secrets)
	case got.Status != http.StatusOK:
		// The attempt has only read so far, so nothing has happened.
		return user{}, answered(target.Unreachable, what+": read the user", got, secrets)
	case !got.JSON || json.Unmarshal(got.Body, &u) != nil || u.Name != of.Account || len(u.Tags) == 0:
		return user{}, rest.OfStranger(got, target.Failed(
			target.Denied, rest.Code(got.Status),
			what+": the answer is not RabbitMQ's description of that user; is api the address of the management API?",
			secrets...,
		))
	}
	return u, nil
}

// put replaces the hash and keeps the rest of the user.
func (b *broker) put(
	ctx context.Context, what string, u user, hash string, of target.Credential, others ...target.Credential,
) error {
	secrets := append(b.secrets(append(others, of)), sensitive.New(hash))
	body, err := json.Marshal(map[string]any{
		"password_hash":     hash,
		"hashing_algorithm": u.algorithm(),
		"tags":              u.Tags,
	})
	if err != nil {
		return target.Failed(target.Denied, "", what+": the user's tags are not JSON", secrets...)
	}
	got, err := b.call(ctx, http.MethodPut, what, of.Account, body, secrets)
	if err != nil {
		return err
	}
	switch got.Status {
	case http.StatusNoContent, http.StatusCreated:
		return nil
	case http.StatusBadRequest:
		if !got.JSON {
			break
		}
		return answered(target.Refused, what, got, secrets)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed:
		return answered(target.Denied, what, got, secrets)
	}
	return answered(target.Unknown, what, got, secrets)
}

func (b *broker) secrets(of []target.Credential) []sensitive.Value {
	secrets := []sensitive.Value{b.admin.Secret}
	for _, c := range of {
		secrets = append(secrets, c.Secret)
	}
	return secrets
}

func (b *broker) call(
	ctx context.Context, method, what, account string, body []byte, secrets []sensitive.Value,
) (rest.Reply, error) {
	path, err := userPath(account)
	if err != nil {
		return rest.Reply{}, target.Failed(target.Denied, "", what+": "+err.Error(), secrets...)
	}
	return b.request(ctx, method, what, path, body, secrets)
}

// userPath returns the path of a user in the API.
func userPath(account string) (string, error) {
	if account == "" || account == "." || account == ".." {
		return "", errors.New("the API cannot address a user of that name")
	}
	return "/api/users/" + strings.ReplaceAll(url.QueryEscape(account), "+", "%20"), nil
}

func (b *broker) request(
	ctx context.Context, method, what, path string, body []byte, secrets []sensitive.Value,
) (rest.Reply, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.config.API+path, bytes.NewReader(body))
	if err != nil {
		return rest.Reply{}, target.Failed(target.Denied, "", what+": api is not a URL", secrets...)
	}
	req.SetBasicAuth(b.admin.Account, b.admin.Secret.Reveal())
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return rest.Do(req, b.dialTCP, b.config.TLS, what, secrets...)
}

func answered(class target.Class, what string, got rest.Reply, secrets []sensitive.Value) *target.Error {
	var said struct {
		Error  string `json:"error"`
		Reason any    `json:"reason"`
	}
	text, words := what+": the API answered with an error", ""
	if got.JSON && json.Unmarshal(got.Body, &said) == nil && said.Error != "" {
		reason, _ := json.Marshal(said.Reason)
		words = target.Said(said.Error+" "+strings.Trim(string(reason), `"`), secrets...)
	}
	return rest.Answered(class, got, text, words, secrets)
}
