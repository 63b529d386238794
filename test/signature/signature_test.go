package signature

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sign"
)

func real(now func() time.Time) rpc.Authenticator { return auth.New(Config(now)) }

// TestMutations changes accepted requests in thousands of ways. `make prove` does so for minutes.
func TestMutations(t *testing.T) {
	t.Parallel()
	f, err := Run(1, 3000, time.Now().Add(time.Minute), real)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d mutations, %d meant the same", f.Mutations, f.Same)
	if f.OtherMeaning > 0 || f.Replays > 0 {
		t.Errorf("%d had another meaning, %d were replays: %s", f.OtherMeaning, f.Replays, f.Example)
	}
	if f.Same == 0 {
		t.Error("no mutation was accepted: those that keep the meaning are not reached")
	}
}

// uncovered is a fault: a JSON body that version 1 does not cover counts, when Authorization
// looks like another version.
type uncovered struct{ rpc.Authenticator }

func (u uncovered) Authenticate(ctx context.Context, r auth.Request) (auth.Result, error) {
	var authorization, contentType string
	for _, v := range r.Header("authorization") {
		authorization = v
	}
	for _, v := range r.Header("content-type") {
		contentType = v
	}
	if !strings.HasPrefix(authorization, "ACS") ||
		strings.Contains(authorization, "Credential") ||
		!strings.Contains(contentType, "json") {
		return u.Authenticator.Authenticate(ctx, r)
	}
	body, err := r.Body()
	if err != nil {
		return auth.Result{}, err
	}
	header := r.Header
	r.Length = 0
	r.Header = func(name string) []string {
		if name == "authorization" {
			return nil
		}
		return header(name)
	}
	result, err := u.Authenticator.Authenticate(ctx, r)
	var members map[string]string
	if err == nil && json.Unmarshal(body, &members) == nil {
		for name, value := range members {
			result.Params = append(result.Params, sign.Param{Name: name, Value: value})
		}
	}
	return result, err
}

// trimmed is a fault: the nonce is signed without the white space around it, and remembered with
// it.
type trimmed struct {
	rpc.Authenticator
	now func() time.Time

	mu   sync.Mutex
	used map[string]bool // guarded by mu
}

func (u *trimmed) Authenticate(ctx context.Context, r auth.Request) (auth.Result, error) {
	header := r.Header
	nonces := header("x-acs-signature-nonce")
	r.Header = func(name string) []string {
		values := header(name)
		if name != "x-acs-signature-nonce" || len(values) == 0 {
			return values
		}
		return []string{strings.TrimSpace(values[0])}
	}
	if len(nonces) == 0 {
		return u.Authenticator.Authenticate(ctx, r)
	}
	nonce := nonces[0]
	result, err := auth.New(Config(u.now)).Authenticate(ctx, r) // it remembers nothing
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil && u.used[nonce] {
		return auth.Result{Claim: result.Claim}, fault.New(fault.Replayed, "")
	}
	if err == nil {
		u.used[nonce] = true
	}
	return result, err
}

// TestMutationsFindFaults verifies that the mutations find faults of the kinds that they are for.
func TestMutationsFindFaults(t *testing.T) {
	t.Parallel()
	for name, newAuth := range map[string]func(now func() time.Time) rpc.Authenticator{
		"parameters that version 1 does not cover": func(now func() time.Time) rpc.Authenticator {
			return uncovered{real(now)}
		},
		"a nonce that has two forms": func(now func() time.Time) rpc.Authenticator {
			return &trimmed{Authenticator: real(now), now: now, used: map[string]bool{}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, err := Run(1, 0, time.Now().Add(time.Minute), newAuth)
			if err != nil {
				t.Fatal(err)
			}
			if f.OtherMeaning+f.Replays == 0 {
				t.Fatalf("%d mutations have not found it", f.Mutations)
			}
			t.Logf("found after %d mutations: %.300s", f.Mutations, f.Example)
		})
	}
}

// FuzzSignature splices bytes into the HTTP/1 form of a signed request, and adds a header.
func FuzzSignature(f *testing.F) {
	f.Add(uint8(0), uint16(0), uint8(0), "", "", "")
	f.Add(uint8(0), uint16(9), uint8(3), "%41", "Authorization", "ACS")
	f.Add(uint8(8), uint16(200), uint8(0), "\u00a0", "X-Acs-Signature-Nonce", "x")
	f.Add(uint8(12), uint16(120), uint8(0), "\r\n \r\n ", "Content-Type", "application/json")
	tested, reference := Start(real(time.Now), time.Now), Start(real(time.Now), time.Now)
	f.Cleanup(func() {
		for _, s := range []*Server{tested, reference} {
			if err := s.Close(); err != nil {
				f.Error(err)
			}
		}
	})
	all := seeds()
	n := 0
	f.Fuzz(func(t *testing.T, index uint8, at uint16, remove uint8, insert, name, value string) {
		n++
		m := all[int(index)%len(all)].build("fuzz-"+time.Now().Format("150405.000000000")+"-"+string(rune('a'+n%26)),
			time.Now())
		m.http2 = false
		want, err := reference.send(m)
		if err != nil || want == "" {
			t.Fatalf("the original is refused: %v", err)
		}
		changed := m.clone()
		if name != "" {
			changed.headers = append(changed.headers, field{name, value})
		}
		raw := changed.http1()
		from := int(at) % (len(raw) + 1)
		to := min(len(raw), from+int(remove))
		raw = append(append(append([]byte{}, raw[:from]...), insert...), raw[to:]...)
		accepted := 0
		for _, b := range [][]byte{raw, m.http1(), raw, m.http1()} {
			got, err := tested.sendHTTP1(b)
			switch {
			case err != nil:
				t.Skip() // the server waits for more, or the answer is to a method without a body
			case got == "":
				continue
			case got != want:
				t.Fatalf("%q means %s, its original %s", b, got, want)
			}
			accepted++
		}
		if accepted != 1 {
			t.Fatalf("%q: %d were accepted", raw, accepted)
		}
	})
}
