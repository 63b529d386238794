package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"time"

	"github.com/keyturn/keyturn/internal/envelope"
	"github.com/keyturn/keyturn/internal/policy"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/store"
	"github.com/keyturn/keyturn/internal/users"
	"github.com/keyturn/keyturn/sensitive"
)

// Admin is the content of DATA_DIR/admin.json, mode 0600: all that a client needs.
type Admin struct {
	AccountID   string
	AccessKeyID string
	// AccessKeySecret is written to the file in clear: the file is how the administrator learns it.
	AccessKeySecret sensitive.Value
	Region          string
	// Endpoint and HTTPEndpoint are host:port of the two listeners; empty without that listener.
	Endpoint, HTTPEndpoint string
	// CAFile is the certificate to trust; empty when the server has one of the operator's own.
	CAFile string
}

type adminFile struct {
	AccountID       string `json:"account_id"`
	AccessKeyID     string `json:"access_key_id"`
	AccessKeySecret string `json:"access_key_secret"`
	Region          string `json:"region"`
	Endpoint        string `json:"endpoint"`
	HTTPEndpoint    string `json:"http_endpoint"`
	CAFile          string `json:"ca_file"`
}

// ReadAdmin reads an admin.json.
func ReadAdmin(path string) (Admin, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Admin{}, err
	}
	var f adminFile
	if json.Unmarshal(data, &f) != nil {
		return Admin{}, fmt.Errorf("%s is not the JSON that keyturn serve writes", path)
	}
	return Admin{
		AccountID:       f.AccountID,
		AccessKeyID:     f.AccessKeyID,
		AccessKeySecret: sensitive.New(f.AccessKeySecret),
		Region:          f.Region,
		Endpoint:        f.Endpoint,
		HTTPEndpoint:    f.HTTPEndpoint,
		CAFile:          f.CAFile,
	}, nil
}

func (a Admin) write(path string) error {
	data, err := json.MarshalIndent(adminFile{
		a.AccountID, a.AccessKeyID, a.AccessKeySecret.Reveal(), a.Region, a.Endpoint, a.HTTPEndpoint, a.CAFile,
	}, "", "  ")
	if err != nil {
		return err
	}
	return root.WriteFile(path, append(data, '\n'))
}

// setUp finds the root key, and on a first run makes the account and its administrator.
//
// It can be cut off at any point and goes on at the next start: the root key is on disk before
// anything is sealed with it, admin.json before the store knows the key in it, and the store is set
// up by one transaction. Until that, admin.json is taken as it is; after that, it is only brought
// up to date with the listeners.
func (s *Server) setUp(ctx context.Context) error {
	_, found, err := s.db.SealedMeta(ctx)
	if err != nil {
		return err
	}
	// The nodes of a cluster share one root key, so none makes its own.
	alone := s.config.Cluster == nil
	ring, err := s.config.RootKey.Load(!found && alone && !s.offline)
	if err != nil && !found && !alone {
		return fmt.Errorf("%w; the nodes of a new cluster need the same root key: make one with `head -c 32 /dev/urandom | "+
			"base64`, mode 0600, and give each node a copy", err)
	}
	if err != nil {
		return err
	}
	s.keyring = envelope.New(ring)
	s.keys = newRekeying(s, ring)
	path := adminPath(s.config.DataDir)
	if !found && s.offline {
		return errNoStore
	}
	if !found {
		if err := s.firstRun(ctx, path); err != nil {
			return err
		}
	}
	if err := s.unlock(ctx); err != nil {
		return err
	}
	s.db.OnKeysRotated(s.keys.load)
	return s.refreshAdmin(ctx, path)
}

// unlock opens the key that the store's records are authenticated with, which proves the root key,
// and reads whose the store is.
func (s *Server) unlock(ctx context.Context) error {
	if err := s.keys.load(ctx); err != nil {
		return err
	}
	meta, found, err := store.Snapshot(ctx, s.db).Meta()
	if err == nil && !found {
		err = errors.New("the description of the store has just gone from it")
	}
	s.account = meta.Account
	return err
}

// firstRun writes admin.json and sets the store up. When another node of a cluster was first, its
// set-up stands, and the file that this one has just made is removed: its key is in no store.
func (s *Server) firstRun(ctx context.Context, path string) error {
	admin, made, err := s.newAdmin(path)
	if err != nil {
		return err
	}
	records, sealed, err := s.keyring.NewRecords()
	if err != nil {
		return err
	}
	s.db.Authenticate(records)
	now := s.config.Now().UTC()
	s.firstAdmin, err = store.Update(ctx, s.db, func(tx *store.Tx) (first bool, err error) {
		if exists, err := tx.HasMeta(); err != nil || exists {
			return false, err
		}
		meta := store.Meta{Account: admin.AccountID, RecordKey: sealed, CreatedAt: now}
		return true, errors.Join(tx.PutMeta(meta), s.putAdmin(tx, admin, now))
	})
	if err == nil && !s.firstAdmin && made {
		err = os.Remove(path)
	}
	return err
}

func (s *Server) putAdmin(tx *store.Tx, a Admin, now time.Time) error {
	return errors.Join(
		tx.PutAccount(store.Account{ID: a.AccountID, CreatedAt: now, Keys: []users.Key{{ID: a.AccessKeyID, CreatedAt: now}}}),
		tx.PutAccessKey(store.AccessKey{
			ID:        a.AccessKeyID,
			CreatedAt: now,
			Secret:    s.keyring.SealAccessKey(a.AccessKeyID, "secret", a.AccessKeySecret),
			Principal: policy.Principal{Kind: policy.KindAccount, Account: a.AccountID, ID: a.AccountID},
		}),
	)
}

// newAdmin takes up an admin.json that an earlier first run left behind, or makes one.
func (s *Server) newAdmin(path string) (admin Admin, made bool, err error) {
	admin, err = ReadAdmin(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return admin, false, err
	}
	admin = Admin{
		AccountID:       s.config.AccountID,
		AccessKeyID:     s.config.Admin.AccessKeyID,
		AccessKeySecret: s.config.Admin.AccessKeySecret,
	}
	if admin.AccountID == "" {
		admin.AccountID = randomText("123456789", 1) + randomText("0123456789", 15)
	}
	if admin.AccessKeyID == "" {
		const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
		admin.AccessKeyID, admin.AccessKeySecret = "KT"+randomText(letters, 22), sensitive.New(randomText(letters, 40))
	}
	return s.reachable(admin), true, s.reachable(admin).write(path)
}

// reachable sets the current addresses and CA of the server in admin.
func (s *Server) reachable(a Admin) Admin {
	a.Region, a.CAFile = s.config.Region, s.caFile
	a.Endpoint, a.HTTPEndpoint = s.Endpoint(), s.HTTPEndpoint()
	return a
}

// refreshAdmin updates admin.json when the listeners change, and removes it when its access key was
// deleted. It does not write the file again after an operator has removed it.
func (s *Server) refreshAdmin(ctx context.Context, path string) error {
	a, err := ReadAdmin(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	_, found, err := store.Snapshot(ctx, s.db).AccessKey(a.AccessKeyID)
	if err != nil { // a damaged record must not stop the server
		s.config.Logger.Error("the access key of admin.json could not be read", "access_key_id", a.AccessKeyID, "err", err)
	} else if !found {
		return s.dropAdmin(path, a)
	}
	if s.offline {
		s.admin = a
		return nil
	}
	now := s.reachable(a)
	if now.Endpoint == a.Endpoint &&
		now.HTTPEndpoint == a.HTTPEndpoint &&
		now.Region == a.Region &&
		now.CAFile == a.CAFile {
		s.admin = a
		return nil
	}
	s.admin = now
	return now.write(path)
}

// dropAdmin removes an admin.json whose access key does not exist. A file of another account is
// left alone.
func (s *Server) dropAdmin(path string, a Admin) error {
	if a.AccountID != s.account {
		s.config.Logger.Error("admin.json is of another account: move it away", "path", path, "account", a.AccountID)
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the file of an access key that was deleted: %w", err)
	}
	s.config.Logger.Info("removed admin.json: its access key no longer exists", "access_key_id", a.AccessKeyID)
	return nil
}

// rootKeyDeleted removes admin.json when it holds the access key that was deleted. After a crash
// before that, the next start removes it.
func (s *Server) rootKeyDeleted(id string) {
	path := adminPath(s.config.DataDir)
	a, err := ReadAdmin(path)
	if err != nil || a.AccessKeyID != id {
		return
	}
	if err := s.dropAdmin(path, a); err != nil {
		s.config.Logger.Error("admin.json was not removed", "err", err)
	}
}

func randomText(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic("server: " + err.Error()) // crypto/rand never fails
		}
		b[i] = alphabet[k.Int64()]
	}
	return string(b)
}
