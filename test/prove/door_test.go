package prove

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
	"github.com/keyturn/keyturn/test/applications"
)

// door is where a consumer logs in, by means that have nothing to do with the code under test: the
// application of the kind, or what this file has for services of these tests.
type door applications.Config

// held is a value as GetSecretValue returns it; each type of secret has some of the members.
type held struct {
	AccountName, AccountPassword string
	AccessKeyID                  string `json:"AccessKeyId"`
	AccessKeySecret              string
}

const loginTimeout = 30 * time.Second

// login tries a value once. It returns an error when the server did not answer.
func (d door) login(ctx context.Context, value string) (bool, error) {
	if applications.Has(d.Kind) {
		return applications.New(applications.Config(d)).Login(ctx, value)
	}
	var h held
	if err := json.Unmarshal([]byte(value), &h); err != nil {
		return false, errors.New("the value is not JSON")
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	switch d.Kind {
	case "ram":
		return d.ram(ctx, h)
	case "webhook":
		return d.http(ctx, h)
	case "oauth":
		return d.token(ctx, h)
	case "command":
		return d.file(h)
	}
	return false, fmt.Errorf("no door of kind %q", d.Kind)
}

// ram asks the service itself who one is.
func (d door) ram(ctx context.Context, h held) (bool, error) {
	c, err := kms.NewClient(kms.Config{
		Endpoint:    "http://" + d.Address,
		Credentials: sign.Credentials{AccessKeyID: h.AccessKeyID, AccessKeySecret: sensitive.New(h.AccessKeySecret)},
	})
	if err != nil {
		return false, err
	}
	_, err = c.GetCallerIdentity(ctx, &kms.GetCallerIdentityRequest{})
	if said, ok := errors.AsType[*kms.Error](err); ok && said.HTTPStatus < http.StatusInternalServerError {
		return false, nil
	}
	return err == nil, err
}

// http asks a service of this test who one is.
func (d door) http(ctx context.Context, h held) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Address+"/api/whoami", nil)
	if err != nil {
		return false, err
	}
	req.SetBasicAuth(h.AccountName, h.AccountPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.StatusCode == http.StatusOK, nil
}

// token asks an OAuth 2.0 provider for one, by the client credentials grant.
func (d door) token(ctx context.Context, h held) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.Address+"/oauth2/token",
		strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(h.AccountName), url.QueryEscape(h.AccountPassword))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.StatusCode == http.StatusOK, nil
}

// file is the service of examples/command-target: it reads the file of keys as it is now.
func (d door) file(h held) (bool, error) {
	b, err := os.ReadFile(d.Address)
	line := fmt.Sprintf("%q\t%x", h.AccountName, sha256.Sum256([]byte(h.AccountPassword)))
	return slices.Contains(strings.Split(string(b), "\n"), line), err
}
