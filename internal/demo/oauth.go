package demo

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/sensitive"
)

const (
	oauthClientID = "keyturn-demo"
	oauthSecrets  = 2 // valid at a time, as providers have it
	oauthLifetime = time.Minute
	oauthMaxBody  = 64 << 10
)

// oauthCredential is the secret data of an OAuth 2.0 app.
type oauthCredential struct {
	ClientId, ClientSecret string
}

// oauthProvider is an OAuth 2.0 provider (RFC 6749) with one app: a token endpoint for the client
// credentials grant (section 4.4) and one resource that wants its tokens. It differs from a Target
// in who makes the credential: the provider does, and a new app secret is live at once beside the
// one before. It keeps hashes of app secrets. On loopback it does without the TLS that section 3.2
// asks for.
type oauthProvider struct {
	address  string
	server   *http.Server
	client   *http.Client
	tokenKey []byte
	served   sync.WaitGroup
	close    func() error

	mu     sync.Mutex
	hashes [][sha256.Size]byte // of the valid app secrets, the newest last
}

// startOAuth starts a provider on a free port of loopback. Its app has no secret yet.
func startOAuth(ctx context.Context) (*oauthProvider, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start an OAuth 2.0 provider: %w", err)
	}
	o := &oauthProvider{address: listener.Addr().String(), tokenKey: make([]byte, 32)}
	_, _ = rand.Read(o.tokenKey) // never fails
	o.close = sync.OnceValue(o.shutdown)
	// Each login is a connection of its own, straight to the provider.
	o.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: loginTimeout}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", o.token)
	mux.HandleFunc("GET /whoami", o.whoami)
	o.server = &http.Server{Handler: mux, ReadTimeout: loginTimeout, WriteTimeout: loginTimeout}
	o.served.Go(func() { _ = o.server.Serve(listener) }) // it ends when the server is closed
	return o, nil
}

// Name is for people.
func (o *oauthProvider) Name() string {
	return fmt.Sprintf("OAuth 2.0 provider in this process, client %s, %s", oauthClientID, o.address)
}

// Issue makes a new app secret, as a person would in the provider's console. It is live when Issue
// returns; of the older ones the newest stays valid.
func (o *oauthProvider) Issue() (sensitive.Value, error) {
	secret := rand.Text() + rand.Text()
	data, err := encodeData(oauthCredential{oauthClientID, secret})
	if err != nil {
		return sensitive.Value{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hashes = append(o.hashes, sha256.Sum256([]byte(secret)))
	o.hashes = o.hashes[max(0, len(o.hashes)-oauthSecrets):]
	return data, nil
}

// Login gets a token and uses it once. Only a provider that refuses the app secret gives
// ErrRejected.
func (o *oauthProvider) Login(ctx context.Context, data sensitive.Value) error {
	var c oauthCredential
	if err := decodeData(data, &c); err != nil {
		return err
	}
	if c.ClientId == "" || c.ClientSecret == "" {
		return errors.New("the secret data has no ClientId or no ClientSecret")
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	token, err := o.requestToken(ctx, c)
	if err != nil {
		return fmt.Errorf("get a token: %w", err)
	}
	if err := o.useToken(ctx, token); err != nil {
		return fmt.Errorf("use the token: %w", err)
	}
	return nil
}

// requestToken authenticates with client_secret_basic: both parts are form-encoded first (RFC 6749
// section 2.3.1).
func (o *oauthProvider) requestToken(ctx context.Context, c oauthCredential) (sensitive.Value, error) {
	form := strings.NewReader(url.Values{"grant_type": {"client_credentials"}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+o.address+"/token", form)
	if err != nil {
		return sensitive.Value{}, errors.New("build the request")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(c.ClientId), url.QueryEscape(c.ClientSecret))
	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		Error       string `json:"error"`
	}
	status, err := o.do(req, &answer)
	switch {
	case err != nil:
		return sensitive.Value{}, err
	case status == http.StatusUnauthorized && answer.Error == "invalid_client":
		return sensitive.Value{}, ErrRejected
	case status != http.StatusOK || answer.AccessToken == "" || !strings.EqualFold(answer.TokenType, "Bearer"):
		return sensitive.Value{}, fmt.Errorf("the provider answered status %d without a token", status)
	}
	return sensitive.New(answer.AccessToken), nil
}

func (o *oauthProvider) useToken(ctx context.Context, token sensitive.Value) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+o.address+"/whoami", nil)
	if err != nil {
		return errors.New("build the request")
	}
	req.Header.Set("Authorization", "Bearer "+token.Reveal())
	var answer struct {
		ClientID string `json:"client_id"`
	}
	status, err := o.do(req, &answer)
	if err != nil {
		return err
	}
	if status != http.StatusOK || answer.ClientID != oauthClientID {
		return fmt.Errorf("the provider answered status %d", status)
	}
	return nil
}

func (o *oauthProvider) do(req *http.Request, into any) (status int, err error) {
	resp, err := o.client.Do(req)
	if err != nil {
		return 0, safeReason(req.Context(), err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, oauthMaxBody)).Decode(into); err != nil {
		return 0, fmt.Errorf("the provider answered status %d without JSON", resp.StatusCode)
	}
	return resp.StatusCode, nil
}

// token is the token endpoint.
func (o *oauthProvider) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, oauthMaxBody)
	if !o.authenticate(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="keyturn demo"`)
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	switch r.PostFormValue("grant_type") {
	case "client_credentials":
		answerJSON(w, http.StatusOK, map[string]any{
			"access_token": o.newToken(time.Now()), "token_type": "Bearer", "expires_in": int(oauthLifetime.Seconds()),
		})
	case "":
		answerJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
	default:
		answerJSON(w, http.StatusBadRequest, map[string]any{"error": "unsupported_grant_type"})
	}
}

func (o *oauthProvider) authenticate(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	id, err1 := url.QueryUnescape(user)
	secret, err2 := url.QueryUnescape(password)
	if !ok || err1 != nil || err2 != nil || id != oauthClientID {
		return false
	}
	hash := sha256.Sum256([]byte(secret))
	o.mu.Lock()
	defer o.mu.Unlock()
	found := 0
	for _, valid := range o.hashes {
		found |= subtle.ConstantTimeCompare(hash[:], valid[:])
	}
	return found == 1
}

// newToken makes a token that carries its own proof, so that none is kept.
func (o *oauthProvider) newToken(now time.Time) string {
	expires := binary.BigEndian.AppendUint64(nil, uint64(now.Add(oauthLifetime).Unix()))
	return base64.RawURLEncoding.EncodeToString(append(expires, o.proof(expires)...))
}

func (o *oauthProvider) checkToken(token string, now time.Time) bool {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size {
		return false
	}
	return hmac.Equal(b[8:], o.proof(b[:8])) && now.Unix() < int64(binary.BigEndian.Uint64(b))
}

// proof returns the HMAC of a token's expiry.
func (o *oauthProvider) proof(expires []byte) []byte {
	m := hmac.New(sha256.New, o.tokenKey)
	m.Write(expires)
	return m.Sum(nil)
}

// whoami is the resource.
func (o *oauthProvider) whoami(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || !o.checkToken(token, time.Now()) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		answerJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	answerJSON(w, http.StatusOK, map[string]any{"client_id": oauthClientID})
}

func answerJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // who has gone away needs no answer
}

// Close stops the provider. A second call does nothing.
func (o *oauthProvider) Close() error { return o.close() }

func (o *oauthProvider) shutdown() error {
	err := o.server.Close()
	o.served.Wait()
	return err
}
