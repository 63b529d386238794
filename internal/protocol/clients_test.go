package protocol

import (
	"context"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// busy answers every request with an error that is over soon, and keeps the requests.
type busy struct{ requests []*http.Request }

func (b *busy) RoundTrip(r *http.Request) (*http.Response, error) {
	b.requests = append(b.requests, r)
	return &http.Response{
		StatusCode: http.StatusServiceUnavailable,
		Header:     http.Header{"X-Acs-Retry-After": {"1"}},
		Body:       io.NopCloser(strings.NewReader(`{"Code":"ServiceUnavailableTemporary","RequestId":"r"}`)),
	}, nil
}

func clients(t *testing.T, b *busy) map[string]reflect.Value {
	t.Helper()
	c, err := kms.NewClient(kms.Config{
		Endpoint:    "http://127.0.0.1:1",
		Credentials: sign.Credentials{AccessKeyID: "id", AccessKeySecret: sensitive.New("secret")},
		HTTPClient:  &http.Client{Transport: b},
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]reflect.Value{"Kms": reflect.ValueOf(c), "Sts": reflect.ValueOf(c),
		"Ram": reflect.ValueOf(ram.New(c))}
}

// TestClientMethods verifies for every operation that a client has a method of its name and types,
// which calls it under its version, and repeats it after an unknown outcome exactly when it is
// declared Retryable.
func TestClientMethods(t *testing.T) {
	t.Parallel()
	for _, o := range Operations() {
		b := &busy{}
		method := clients(t, b)[o.Service.Name].MethodByName(o.Name)
		want := reflect.FuncOf(
			[]reflect.Type{reflect.TypeFor[context.Context](), reflect.PointerTo(o.Request())},
			[]reflect.Type{reflect.PointerTo(o.Response()), reflect.TypeFor[error]()}, false)
		if !method.IsValid() || method.Type() != want {
			t.Errorf("the client has no method %s of type %s", o.Name, want)
			continue
		}
		out := method.Call([]reflect.Value{reflect.ValueOf(t.Context()), reflect.New(o.Request())})
		err, _ := out[1].Interface().(error)
		if refused := (*kms.Error)(nil); !errors.As(err, &refused) {
			t.Errorf("%s = %v; want the error of the endpoint", o.Name, err)
		}
		if attempts := len(b.requests); attempts > 1 != o.Retryable {
			t.Errorf("%s, Retryable: %t, was sent %d times", o.Name, o.Retryable, attempts)
		}
		if h := b.requests[0].Header; h.Get("X-Acs-Action") != o.Name || h.Get("X-Acs-Version") != o.Version {
			t.Errorf("%s was sent as %s of version %s", o.Name, h.Get("X-Acs-Action"), h.Get("X-Acs-Version"))
		}
	}
}

// TestEveryClientMethodIsDeclared verifies that no client has a method that takes the request of an
// operation which is not declared.
func TestEveryClientMethodIsDeclared(t *testing.T) {
	t.Parallel()
	for _, c := range clients(t, &busy{}) {
		for i := range c.NumMethod() {
			name, signature := c.Type().Method(i).Name, c.Method(i).Type()
			if signature.NumIn() == 2 && signature.In(1).Kind() == reflect.Pointer && Named(name) == nil {
				t.Errorf("%s.%s is no operation: declare it in table.go of its package", c.Type(), name)
			}
		}
	}
}
