package compat_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdkv3 "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/dara"
	"github.com/alibabacloud-go/tea/tea"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// TestSDKv3 plays the scenario through github.com/alibabacloud-go/kms-20160120/v3, in each of its
// signing modes, and through the generic client that it is made of, with the parameters in each
// of the places that it knows.
func TestSDKv3(t *testing.T) {
	t.Parallel()
	for _, c := range []client{
		{name: "typed, signature v3", connect: connectV3(openapi.Config{})},
		{name: "typed, signatureAlgorithm v2", connect: connectV3(openapi.Config{SignatureAlgorithm: tea.String("v2")})},
		{name: "typed, signatureVersion v4", connect: connectV3(openapi.Config{SignatureVersion: tea.String("v4")})},
		{name: "generic, query", connect: connectGeneric("POST", inQuery), strict: true},
		{name: "generic, GET", connect: connectGeneric("GET", inQuery), strict: true, only: func(op string) bool {
			return op != "SetSecretPolicy" && op != "GetSecretPolicy"
		}},
		{name: "generic, JSON body", connect: connectGeneric("POST", inJSON), strict: true},
		{name: "generic, form body", connect: connectGeneric("POST", inForm), strict: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			play(t, c)
		})
	}
}

// v3Lacks are the operations that the typed client does not have, and why.
var v3Lacks = map[string]string{
	"GetCallerIdentity": "of the token service, which is another module; called through the generic client",
}

// TestSDKv3Operations verifies that the SDK lacks exactly the listed operations of the scenario.
func TestSDKv3Operations(t *testing.T) {
	t.Parallel()
	for _, op := range scenarioOps(t) {
		_, has := reflect.TypeFor[*sdkv3.Client]().MethodByName(op)
		reason, lacks := v3Lacks[op]
		if has == lacks {
			t.Errorf("%s: the SDK has it: %t; listed as lacking: %t", op, has, lacks)
		}
		if lacks {
			t.Logf("%s: %s", op, reason)
		}
	}
}

// TestSDKv3Unsupported verifies that the server knows every other operation of the SDK, and
// refuses it as unsupported.
func TestSDKv3Unsupported(t *testing.T) {
	t.Parallel()
	c := connectGeneric("POST", inQuery)(t, startFixed(t, time.Now().UTC().Truncate(time.Second)), right)
	have, refused := scenarioOps(t), 0
	sdk := reflect.TypeFor[*sdkv3.Client]()
	for i := range sdk.NumMethod() {
		op, ok := strings.CutSuffix(sdk.Method(i).Name, "WithOptions")
		if !ok || slices.Contains(have, op) {
			continue
		}
		refused++
		_, got, err := c.call(op, nil)
		if err != nil || got == nil || got.Status != 400 || got.Code != "UnsupportedOperation" {
			t.Errorf("%s: %+v, %v; want it refused with 400 UnsupportedOperation", op, got, err)
		}
	}
	t.Logf("%d operations refused", refused)
}

func v3Config(t *testing.T, s *keyturntest.Server, c sign.Credentials, config openapi.Config) *openapi.Config {
	t.Helper()
	ca, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	config.AccessKeyId, config.AccessKeySecret = tea.String(c.AccessKeyID), tea.String(c.AccessKeySecret.Reveal())
	config.Endpoint, config.RegionId, config.Ca = tea.String(s.Endpoint), tea.String(region), tea.String(string(ca))
	return &config
}

// v3 is the typed client of the newer Go SDK, with the generic one for what it lacks.
type v3 struct {
	*sdkv3.Client
	generic caller
}

func connectV3(config openapi.Config) func(*testing.T, *keyturntest.Server, sign.Credentials) caller {
	return func(t *testing.T, s *keyturntest.Server, c sign.Credentials) caller {
		t.Helper()
		k, err := sdkv3.NewClient(v3Config(t, s, c, config))
		if err != nil {
			t.Fatalf("make the SDK's client: %v", err)
		}
		return &v3{k, connectGeneric("POST", inQuery)(t, s, c)}
	}
}

func (c *v3) call(op string, in map[string]any) (map[string]any, *refusal, error) {
	if v3Lacks[op] != "" {
		return c.generic.call(op, in)
	}
	method := reflect.ValueOf(c.Client).MethodByName(op + "WithOptions")
	var args []reflect.Value
	for i := range method.Type().NumIn() { // the request, unless there is none, and the options
		args = append(args, reflect.New(method.Type().In(i).Elem()))
	}
	if len(args) > 1 {
		if err := fillV3(args[0].Elem(), in); err != nil {
			return nil, nil, err
		}
	}
	result := method.Call(args)
	if err, _ := result[1].Interface().(error); err != nil {
		return refusalV3(err)
	}
	out, err := asMap(result[0].Elem().FieldByName("Body").Interface())
	return out, nil, err
}

var v3Message = regexp.MustCompile(`^code: [0-9]+, `)

func refusalV3(err error) (map[string]any, *refusal, error) {
	var e *tea.SDKError
	if !errors.As(err, &e) || e.StatusCode == nil || e.Data == nil {
		return nil, nil, err
	}
	var data struct{ RequestId, HostId, Recommend, Code, Message string }
	if err := json.Unmarshal([]byte(*e.Data), &data); err != nil {
		return nil, nil, fmt.Errorf("data of the SDK's error: %w", err)
	}
	if data.Code != tea.StringValue(e.Code) || data.HostId == "" {
		return nil, nil, fmt.Errorf("error answer has Code %q and HostId %q; the SDK says %q", data.Code,
			data.HostId, tea.StringValue(e.Code))
	}
	return nil, &refusal{
		Status: *e.StatusCode, Code: tea.StringValue(e.Code), RequestID: data.RequestId,
		Message: v3Message.ReplaceAllString(tea.StringValue(e.Message), ""),
	}, nil
}

// fillV3 sets the fields of a request struct by the wire names in their tags; a dot in a name
// goes into a struct.
func fillV3(request reflect.Value, in map[string]any) error {
	for name, v := range in {
		if head, rest, ok := cutDot(name); ok {
			name, v = head, map[string]any{rest: v}
		}
		f, ok := fieldByTag(request, "json", name)
		if !ok {
			return fmt.Errorf("the SDK's %s has no %s", request.Type(), name)
		}
		if err := setV3(f, v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func cutDot(s string) (head, rest string, ok bool) {
	if i := len("ExtendedConfig"); len(s) > i && s[i] == '.' {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

func setV3(f reflect.Value, v any) error {
	switch f.Kind() {
	case reflect.Map:
		f.Set(reflect.ValueOf(v))
		return nil
	case reflect.Slice:
		for _, item := range v.([]any) {
			e := reflect.New(f.Type().Elem()).Elem()
			if err := setV3(e, item); err != nil {
				return err
			}
			f.Set(reflect.Append(f, e))
		}
		return nil
	}
	p := reflect.New(f.Type().Elem())
	f.Set(p)
	switch p.Elem().Kind() {
	case reflect.Struct:
		return fillV3(p.Elem(), v.(map[string]any))
	case reflect.Bool:
		p.Elem().SetBool(v.(bool))
	case reflect.Int32:
		p.Elem().SetInt(int64(v.(float64)))
	case reflect.String:
		p.Elem().SetString(text(v))
	default:
		return fmt.Errorf("a field of type %s", f.Type())
	}
	return nil
}

// Where the generic client puts parameters.
const (
	inQuery = "query"
	inJSON  = "json"
	inForm  = "formData"
)

// generic is the client that every newer SDK is made of, which calls operations by name.
type generic struct {
	*openapi.Client
	method, place string
}

func connectGeneric(method, place string) func(*testing.T, *keyturntest.Server, sign.Credentials) caller {
	return func(t *testing.T, s *keyturntest.Server, c sign.Credentials) caller {
		t.Helper()
		k, err := openapi.NewClient(v3Config(t, s, c, openapi.Config{}))
		if err != nil {
			t.Fatalf("make the SDK's generic client: %v", err)
		}
		return &generic{k, method, place}
	}
}

func (c *generic) call(op string, in map[string]any) (map[string]any, *refusal, error) {
	params := &openapi.Params{
		Action: tea.String(op), Version: tea.String(kms.Version), Protocol: tea.String("HTTPS"), Pathname: tea.String("/"),
		Method: tea.String(c.method), AuthType: tea.String("AK"), Style: tea.String("RPC"),
		ReqBodyType: tea.String(inForm), BodyType: tea.String("json"),
	}
	if op == "GetCallerIdentity" {
		params.Version = tea.String(kms.STSVersion)
	}
	request := &openapi.OpenApiRequest{}
	flat := flattened(in)
	switch c.place {
	case inQuery:
		request.Query = flat
	default:
		params.ReqBodyType = tea.String(c.place)
		body := map[string]any{}
		for k, v := range flat {
			body[k] = *v
		}
		if len(body) > 0 {
			request.Body = body
		}
	}
	result, err := c.CallApi(params, request, &dara.RuntimeOptions{})
	if err != nil {
		return refusalV3(err)
	}
	out, err := asMap(result["body"])
	return out, nil, err
}

// flattened are parameters as they travel: the lists of the newer tag calls one by one, the rest
// as text.
func flattened(in map[string]any) map[string]*string {
	flat := map[string]*string{}
	for name, v := range in {
		if name != "ResourceId" && name != "Tag" && name != "TagKey" {
			flat[name] = tea.String(text(v))
			continue
		}
		for i, item := range v.([]any) {
			n := name + "." + strconv.Itoa(i+1)
			members, ok := item.(map[string]any)
			if !ok {
				flat[n] = tea.String(text(item))
			}
			for member, value := range members {
				flat[n+"."+member] = tea.String(text(value))
			}
		}
	}
	return flat
}
