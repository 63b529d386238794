package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
)

var errNoStore = errors.New(
	"there is no store in the data directory: data-dir must name the directory of the stopped server")

// Offline acts as the root account on the store of a server that does not run. The root key proves
// the right to do so.
type Offline struct{ s *Server }

// WithOffline opens the store and the trail that c names, as a server does but without a listener,
// and closes them after do. Every call is recorded in the trail like one of a client. It fails
// while a server runs in the same data directory.
func WithOffline(ctx context.Context, c Config, do func(*Offline) error) error {
	s, err := open(ctx, c, true)
	if err != nil {
		return err
	}
	trailCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan error, 1)
	go func() { done <- s.trail.Run(trailCtx) }()
	<-s.trail.Ready()
	err = do(&Offline{s})
	stop()
	trailErr := <-done
	s.tryKeepHead(context.WithoutCancel(ctx))
	return errors.Join(err, trailErr, s.release())
}

// call makes one call of the user service through the gate.
func call[Out any](ctx context.Context, o *Offline, action string, in any) (*Out, error) {
	out, err := o.s.gate.Call(ctx, protocol.Named(action), protocol.Request{
		ID:        uuid.NewString(),
		Principal: policy.Principal{Kind: policy.KindAccount, Account: o.s.account, ID: o.s.account},
		Params:    wire.Encode(in),
		UserAgent: "keyturn admin --offline",
	})
	if err != nil {
		if code := protocol.CodeFor(err); code.Message != "" {
			return nil, fmt.Errorf("%s: %s", action, code.Message)
		}
		return nil, fmt.Errorf("%s: %w", action, err)
	}
	return out.(*Out), nil
}

// ListAccessKeys lists the access keys of the root account.
func (o *Offline) ListAccessKeys(
	ctx context.Context, in *ram.ListAccessKeysRequest,
) (*ram.ListAccessKeysResponse, error) {
	return call[ram.ListAccessKeysResponse](ctx, o, "ListAccessKeys", in)
}

// CreateAccessKey makes an access key of the root account.
func (o *Offline) CreateAccessKey(
	ctx context.Context, in *ram.CreateAccessKeyRequest,
) (*ram.CreateAccessKeyResponse, error) {
	return call[ram.CreateAccessKeyResponse](ctx, o, "CreateAccessKey", in)
}

// UpdateAccessKey switches an access key of the root account on or off.
func (o *Offline) UpdateAccessKey(ctx context.Context, in *ram.UpdateAccessKeyRequest) (*ram.EmptyResponse, error) {
	return call[ram.EmptyResponse](ctx, o, "UpdateAccessKey", in)
}

// DeleteAccessKey deletes an access key of the root account.
func (o *Offline) DeleteAccessKey(ctx context.Context, in *ram.AccessKeyRequest) (*ram.EmptyResponse, error) {
	return call[ram.EmptyResponse](ctx, o, "DeleteAccessKey", in)
}

// WriteAdmin replaces admin.json by one with that access key, and returns its path. The server
// fills in how it is reached when it starts.
func (o *Offline) WriteAdmin(id string, secret sensitive.Value) (string, error) {
	path := adminPath(o.s.config.DataDir)
	a := o.s.admin
	a.AccountID, a.AccessKeyID, a.AccessKeySecret, a.Region = o.s.account, id, secret, o.s.config.Region
	if ca := filepath.Join(o.s.config.DataDir, tlsDir, caName); a.CAFile == "" && o.s.config.TLSCertFile == "" {
		if _, err := os.Stat(ca); err == nil {
			a.CAFile = ca
		}
	}
	return path, a.write(path)
}
