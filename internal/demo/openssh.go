package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/internal/sandbox"
	"github.com/keyturn/keyturn/sensitive"
)

// openSSH is a real sshd that lets the account of this process in.
type openSSH struct {
	sshAccount
	*sandbox.OpenSSH
	dir string
	// second is another one, with the same account and a list of keys of its own, for the engine.
	second *sandbox.OpenSSH
}

// StartOpenSSH starts sshd on loopback with all its files in a new directory inside dir. The
// context bounds the start only.
func StartOpenSSH(ctx context.Context, dir string) (Target, error) {
	server, err := sandbox.StartOpenSSH(ctx, sandbox.OpenSSHConfig{Dir: dir})
	if err != nil {
		return nil, err
	}
	o := &openSSH{
		sshAccount: sshAccount{user: server.User, address: server.Addr(), hostKey: server.HostKey},
		OpenSSH:    server,
		dir:        dir,
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	if err := o.prove(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start OpenSSH: %w", err), o.Close())
	}
	return o, nil
}

// prove logs in once with a key for the occasion. sshd answers a locked account or one without a
// proper shell like a wrong key, and a demo must not learn that from its first rotation.
func (o *openSSH) prove(ctx context.Context) error {
	_, signer, err := newKey()
	if err != nil {
		return err
	}
	path := o.AuthorizedKeys()
	if err := replaceFile(path, ssh.MarshalAuthorizedKey(signer.PublicKey())); err != nil {
		return err
	}
	if err := o.run(ctx, signer, "true"); err != nil {
		return fmt.Errorf("sshd does not let account %s in; see whether it is locked or has no shell: %w", o.user, err)
	}
	return replaceFile(path, nil)
}

func (o *openSSH) Name() string {
	return fmt.Sprintf("%s, account %s, %s", o.Version, o.user, o.address)
}

func (o *openSSH) Registration() string { return "authorized_keys of " + o.user + " replaced" }

// Register replaces the file by a rename, so that sshd reads the old key or the new one, never
// half.
func (o *openSSH) Register(ctx context.Context, data sensitive.Value) error {
	signer, err := o.open(data)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := replaceFile(o.AuthorizedKeys(), ssh.MarshalAuthorizedKey(signer.PublicKey())); err != nil {
		return fmt.Errorf("register a key: %w", err)
	}
	return nil
}

// Managed starts a second sshd: this one lets a single account in, whose keys Register replaces.
func (o *openSSH) Managed(ctx context.Context) (Managed, error) {
	server, err := sandbox.StartOpenSSH(ctx, sandbox.OpenSSHConfig{Dir: o.dir})
	if err != nil {
		return Managed{}, err
	}
	o.second = server
	a := &sshAccount{user: server.User, address: server.Addr(), hostKey: server.HostKey}
	return a.managed(server.Version, server.AuthorizedKeys())
}

// Close stops both.
func (o *openSSH) Close() error {
	if o.second == nil {
		return o.OpenSSH.Close()
	}
	return errors.Join(o.second.Close(), o.OpenSSH.Close())
}

func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error counts
	}
	return err
}
