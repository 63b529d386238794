package demo

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// sshCredential is the secret data, in the words of the API for hosts, and the passphrase that
// opens the private key. A key that the engine makes has none.
type sshCredential struct {
	UserName, PublicKey, PrivateKey, Passphrase string
}

// sshAccount is the client side of an SSH target: one account on one host whose key is known.
type sshAccount struct {
	user, address string
	hostKey       ssh.PublicKey
	keys          keyring
}

// NewCredential makes an ed25519 key pair with the private key sealed by the password.
func (a *sshAccount) NewCredential(password sensitive.Value) (sensitive.Value, error) {
	if err := checkPassword(password.Reveal()); err != nil {
		return sensitive.Value{}, err
	}
	private, signer, err := newKey()
	if err != nil {
		return sensitive.Value{}, err
	}
	sealed, err := ssh.MarshalPrivateKeyWithPassphrase(private, "keyturn", []byte(password.Reveal()))
	if err != nil {
		return sensitive.Value{}, errors.New("seal the private key")
	}
	data, err := encodeData(sshCredential{
		UserName:   a.user,
		PublicKey:  strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " keyturn",
		PrivateKey: string(pem.EncodeToMemory(sealed)),
		Passphrase: password.Reveal(),
	})
	if err != nil {
		return sensitive.Value{}, err
	}
	a.keys.put(data, signer)
	return data, nil
}

// open returns the key in data, after checking that all its parts belong together: a public key
// without its private key would lock the account.
func (a *sshAccount) open(data sensitive.Value) (ssh.Signer, error) {
	if signer := a.keys.get(data); signer != nil {
		return signer, nil
	}
	var c sshCredential
	if err := decodeData(data, &c); err != nil {
		return nil, err
	}
	if c.UserName != a.user {
		return nil, fmt.Errorf("the secret data is not for this target: UserName must be %q", a.user)
	}
	public, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(c.PublicKey))
	if err != nil || len(options) > 0 || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("PublicKey must be one line of authorized_keys without options")
	}
	signer, err := c.signer()
	if err != nil {
		return nil, errors.New("PrivateKey cannot be opened with Passphrase")
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
		return nil, errors.New("PublicKey and PrivateKey are not a pair")
	}
	a.keys.put(data, signer)
	return signer, nil
}

func (c sshCredential) signer() (ssh.Signer, error) {
	if c.Passphrase == "" {
		return ssh.ParsePrivateKey([]byte(c.PrivateKey))
	}
	return ssh.ParsePrivateKeyWithPassphrase([]byte(c.PrivateKey), []byte(c.Passphrase))
}

// managed is how the engine rotates the key of an account that changes its own list of keys.
func (a *sshAccount) managed(software, authorizedKeys string) (Managed, error) {
	private, signer, err := newKey()
	if err != nil {
		return Managed{}, err
	}
	block, err := ssh.MarshalPrivateKey(private, "keyturn")
	if err != nil {
		return Managed{}, errors.New("write a private key")
	}
	if err := replaceFile(authorizedKeys, ssh.MarshalAuthorizedKey(signer.PublicKey())); err != nil {
		return Managed{}, fmt.Errorf("register a key: %w", err)
	}
	// Without Passphrase, which the API does not know.
	data, err := encodeData(map[string]string{
		"UserName":   a.user,
		"PublicKey":  strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " keyturn",
		"PrivateKey": string(pem.EncodeToMemory(block)),
	})
	if err != nil {
		return Managed{}, err
	}
	config, err := encodeData(map[string]any{
		"address": a.address, "self": true, "authorized_keys": authorizedKeys,
		"host_keys": []string{strings.TrimSpace(string(ssh.MarshalAuthorizedKey(a.hostKey)))},
	})
	return Managed{
		Name:     fmt.Sprintf("%s, account %s, %s", software, a.user, a.address),
		Kind:     "ssh",
		Config:   config.Reveal(),  // addresses and public keys
		Accounts: []string{a.user}, // the host has one file of keys, so each of its accounts is privileged
		Secret:   "acs/ecs/demo",
		Type:     kms.TypeECS,
		Extended: fmt.Sprintf(`{"SecretSubType":"SSHKey","RegionId":"local","InstanceId":%q}`, targetName),
		Data:     data,
		Apply:    "a line added to authorized_keys of " + a.user,
		Retire:   "the line of the old key removed",
		Login:    a.Login,
	}, err
}

// Login runs the command true in a fresh connection.
func (a *sshAccount) Login(ctx context.Context, data sensitive.Value) error {
	signer, err := a.open(data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if err := a.run(ctx, signer, "true"); err != nil {
		return fmt.Errorf("log in by SSH as %s: %w", a.user, err)
	}
	return nil
}

func (a *sshAccount) run(ctx context.Context, signer ssh.Signer, command string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", a.address)
	if err != nil {
		return safeReason(ctx, err)
	}
	defer conn.Close()
	// Nothing below takes a context; closing the connection ends whatever waits.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	transport, channels, requests, err := ssh.NewClientConn(conn, a.address, &ssh.ClientConfig{
		User:              a.user,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   ssh.FixedHostKey(a.hostKey),
		HostKeyAlgorithms: []string{a.hostKey.Type()},
	})
	if err != nil {
		return handshakeReason(ctx, err)
	}
	client := ssh.NewClient(transport, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return safeReason(ctx, err)
	}
	defer session.Close()
	if err := session.Run(command); err != nil {
		if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
			return fmt.Errorf("command %q ended with status %d", command, exit.ExitStatus())
		}
		return safeReason(ctx, err)
	}
	return nil
}

// handshakeReason tells a refused key from a broken connection. The library has no type for the
// former; it uses this text only when the server has answered every attempt, and the conformance
// test holds it to that. "publickey" must be among the attempts, or the key was never shown.
func handshakeReason(ctx context.Context, err error) error {
	text := err.Error()
	if strings.Contains(text, "unable to authenticate") && strings.Contains(text, "publickey") {
		return ErrRejected
	}
	if strings.Contains(text, "host key mismatch") {
		return errors.New("another host answers at this address: its host key is not the one known")
	}
	return safeReason(ctx, err)
}

// keyring remembers the keys opened last. Opening one costs tenths of a second on purpose, and a
// program that logs in ten times a second would open it once.
type keyring struct {
	mu      sync.Mutex
	entries []keyringEntry
}

type keyringEntry struct {
	data   sensitive.Value
	signer ssh.Signer
}

// keyringSize holds the current credential, the one before and the one being prepared.
const keyringSize = 4

func (k *keyring) get(data sensitive.Value) ssh.Signer {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.entries {
		if e.data.Equal(data) {
			return e.signer
		}
	}
	return nil
}

func (k *keyring) put(data sensitive.Value, signer ssh.Signer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.entries) == keyringSize {
		k.entries = k.entries[1:]
	}
	k.entries = append(k.entries, keyringEntry{data, signer})
}

// newKey makes a key pair for a host of ours or for one login.
func newKey() (ed25519.PrivateKey, ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, nil, fmt.Errorf("generate a key pair: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, nil, fmt.Errorf("generate a key pair: %w", err)
	}
	return private, signer, nil
}

// deadline bounds what one side may take for a connection.
func deadline() time.Time { return time.Now().Add(3 * loginTimeout) }
