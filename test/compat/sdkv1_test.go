package compat_test

import (
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aliyun/alibaba-cloud-sdk-go/sdk"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/auth/credentials"
	sdkerrors "github.com/aliyun/alibaba-cloud-sdk-go/sdk/errors"
	"github.com/aliyun/alibaba-cloud-sdk-go/sdk/requests"
	sdkkms "github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
	"github.com/aliyun/alibaba-cloud-sdk-go/services/sts"

	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/sign"
)

// TestSDKv1 plays the scenario through github.com/aliyun/alibaba-cloud-sdk-go, which signs with
// version 1 and puts every parameter into the query, 92 KB of them at most: with POST as it does
// by default, with GET, asking for XML, and over HTTP/2.
func TestSDKv1(t *testing.T) {
	t.Parallel()
	for _, c := range []client{
		{name: "POST", connect: connectV1("", "JSON")},
		{name: "GET", connect: connectV1("GET", "JSON")},
		{name: "XML", connect: connectV1("", "XML")},
		{name: "HTTP/2", connect: connectV1Over(true, "", "JSON")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			play(t, c)
		})
	}
}

// v1Requests make the request of each operation, as the SDK asks its users to.
var v1Requests = map[string]func() requests.AcsRequest{
	"CreateSecret":               func() requests.AcsRequest { return sdkkms.CreateCreateSecretRequest() },
	"DeleteSecret":               func() requests.AcsRequest { return sdkkms.CreateDeleteSecretRequest() },
	"DescribeAccountKmsStatus":   func() requests.AcsRequest { return sdkkms.CreateDescribeAccountKmsStatusRequest() },
	"DescribeRegions":            func() requests.AcsRequest { return sdkkms.CreateDescribeRegionsRequest() },
	"DescribeSecret":             func() requests.AcsRequest { return sdkkms.CreateDescribeSecretRequest() },
	"GetCallerIdentity":          func() requests.AcsRequest { return sts.CreateGetCallerIdentityRequest() },
	"GetRandomPassword":          func() requests.AcsRequest { return sdkkms.CreateGetRandomPasswordRequest() },
	"GetSecretPolicy":            func() requests.AcsRequest { return sdkkms.CreateGetSecretPolicyRequest() },
	"GetSecretValue":             func() requests.AcsRequest { return sdkkms.CreateGetSecretValueRequest() },
	"ListResourceTags":           func() requests.AcsRequest { return sdkkms.CreateListResourceTagsRequest() },
	"ListSecretVersionIds":       func() requests.AcsRequest { return sdkkms.CreateListSecretVersionIdsRequest() },
	"ListSecrets":                func() requests.AcsRequest { return sdkkms.CreateListSecretsRequest() },
	"ListTagResources":           func() requests.AcsRequest { return sdkkms.CreateListTagResourcesRequest() },
	"PutSecretValue":             func() requests.AcsRequest { return sdkkms.CreatePutSecretValueRequest() },
	"RestoreSecret":              func() requests.AcsRequest { return sdkkms.CreateRestoreSecretRequest() },
	"RotateSecret":               func() requests.AcsRequest { return sdkkms.CreateRotateSecretRequest() },
	"SetSecretPolicy":            func() requests.AcsRequest { return sdkkms.CreateSetSecretPolicyRequest() },
	"TagResource":                func() requests.AcsRequest { return sdkkms.CreateTagResourceRequest() },
	"TagResources":               func() requests.AcsRequest { return sdkkms.CreateTagResourcesRequest() },
	"UntagResource":              func() requests.AcsRequest { return sdkkms.CreateUntagResourceRequest() },
	"UntagResources":             func() requests.AcsRequest { return sdkkms.CreateUntagResourcesRequest() },
	"UpdateSecret":               func() requests.AcsRequest { return sdkkms.CreateUpdateSecretRequest() },
	"UpdateSecretRotationPolicy": func() requests.AcsRequest { return sdkkms.CreateUpdateSecretRotationPolicyRequest() },
	"UpdateSecretVersionStage":   func() requests.AcsRequest { return sdkkms.CreateUpdateSecretVersionStageRequest() },
}

// TestSDKv1Operations verifies that the two packages of the SDK have every operation of the
// scenario.
func TestSDKv1Operations(t *testing.T) {
	t.Parallel()
	for _, op := range scenarioOps(t) {
		_, inKMS := reflect.TypeFor[*sdkkms.Client]().MethodByName(op)
		_, inSTS := reflect.TypeFor[*sts.Client]().MethodByName(op)
		if wantSTS := op == "GetCallerIdentity"; inKMS == wantSTS || inSTS != wantSTS || v1Requests[op] == nil {
			t.Errorf("%s: in package kms %t, in package sts %t, in the table %t", op, inKMS, inSTS, v1Requests[op] != nil)
		}
	}
}

// v1 is the older Go SDK with both of its packages.
type v1 struct {
	kms            *sdkkms.Client
	sts            *sts.Client
	method, format string
}

func connectV1(method, format string) func(*testing.T, *keyturntest.Server, sign.Credentials) caller {
	return connectV1Over(false, method, format)
}

func connectV1Over(http2 bool, method, format string) func(*testing.T, *keyturntest.Server, sign.Credentials) caller {
	return func(t *testing.T, s *keyturntest.Server, c sign.Credentials) caller {
		t.Helper()
		credential := credentials.NewAccessKeyCredential(c.AccessKeyID, c.AccessKeySecret.Reveal())
		config := func() *sdk.Config {
			transport := &http.Transport{
				TLSClientConfig:   &tls.Config{RootCAs: s.RootCAs, MinVersion: tls.VersionTLS12},
				ForceAttemptHTTP2: http2,
			}
			t.Cleanup(transport.CloseIdleConnections)
			speaks(t, s, transport, http2)
			return sdk.NewConfig().WithScheme("HTTPS").WithHttpTransport(transport).WithTimeout(30 * time.Second)
		}
		k, err := sdkkms.NewClientWithOptions(region, config(), credential)
		if err != nil {
			t.Fatalf("make the SDK's KMS client: %v", err)
		}
		token, err := sts.NewClientWithOptions(region, config(), credential)
		if err != nil {
			t.Fatalf("make the SDK's STS client: %v", err)
		}
		k.Domain, token.Domain = s.Endpoint, s.Endpoint
		return &v1{k, token, method, format}
	}
}

// speaks verifies that a transport and the server agree on HTTP/2, or on HTTP/1.1.
func speaks(t *testing.T, s *keyturntest.Server, transport *http.Transport, http2 bool) {
	t.Helper()
	resp, err := (&http.Client{Transport: transport, Timeout: 30 * time.Second}).Get("https://" + s.Endpoint + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.ProtoAtLeast(2, 0) != http2 {
		t.Fatalf("the server speaks %s, %v; want HTTP/2: %t", resp.Proto, err, http2)
	}
}

func (c *v1) call(op string, in map[string]any) (map[string]any, *refusal, error) {
	request := v1Requests[op]()
	if err := fillV1(reflect.ValueOf(request).Elem(), in); err != nil {
		return nil, nil, err
	}
	rpc := reflect.ValueOf(request).Elem().FieldByName("RpcRequest").Interface().(*requests.RpcRequest)
	if rpc.AcceptFormat = c.format; c.method != "" && op != "SetSecretPolicy" { // which takes POST alone
		rpc.Method = c.method
	}
	method := reflect.ValueOf(c.kms).MethodByName(op)
	if !method.IsValid() {
		method = reflect.ValueOf(c.sts).MethodByName(op)
	}
	result := method.Call([]reflect.Value{reflect.ValueOf(request)})
	if err, _ := result[1].Interface().(error); err != nil {
		return c.refusal(err)
	}
	out, err := asMap(result[0].Interface())
	return out, nil, err
}

func (c *v1) refusal(err error) (map[string]any, *refusal, error) {
	var e *sdkerrors.ServerError
	if !errors.As(err, &e) {
		return nil, nil, err
	}
	if c.format != "XML" {
		return nil, &refusal{Status: e.HttpStatus(), Code: e.ErrorCode(), Message: e.Message(), RequestID: e.RequestId()}, nil
	}
	// The SDK does not read errors in XML and shows them as they came.
	var body struct {
		XMLName                          xml.Name `xml:"Error"`
		HttpStatus                       int
		RequestId, HostId, Code, Message string
	}
	if err := xml.Unmarshal([]byte(e.Message()), &body); err != nil {
		return nil, nil, fmt.Errorf("error answer in XML: %w", err)
	}
	if body.HttpStatus != e.HttpStatus() || body.HostId == "" {
		return nil, nil, fmt.Errorf("error answer in XML has HttpStatus %d and HostId %q; the status is %d",
			body.HttpStatus, body.HostId, e.HttpStatus())
	}
	return nil, &refusal{Status: body.HttpStatus, Code: body.Code, Message: body.Message, RequestID: body.RequestId}, nil
}

// fillV1 sets the fields of a request struct by the wire names in their tags. RegionId is not
// among them: the SDK sends the region of the client with every call.
func fillV1(request reflect.Value, in map[string]any) error {
	for name, v := range in {
		if name == "RegionId" {
			continue
		}
		f, ok := fieldByTag(request, "name", name)
		if !ok {
			return fmt.Errorf("the SDK's %s has no %s", request.Type(), name)
		}
		list, isList := v.([]any)
		if f.Kind() != reflect.Pointer || !isList {
			f.SetString(text(v))
			continue
		}
		items := reflect.New(f.Type().Elem())
		for _, item := range list {
			e := reflect.New(items.Elem().Type().Elem()).Elem()
			if members, ok := item.(map[string]any); ok {
				if err := fillV1(e, members); err != nil {
					return err
				}
			} else {
				e.SetString(text(item))
			}
			items.Elem().Set(reflect.Append(items.Elem(), e))
		}
		f.Set(items)
	}
	return nil
}

// fieldByTag finds the field whose tag begins with that wire name.
func fieldByTag(v reflect.Value, tag, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if n, _, _ := strings.Cut(v.Type().Field(i).Tag.Get(tag), ","); n == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

// TestSDKv1WrongSecret verifies that the SDK reports a wrong secret when the server's string to
// sign equals its own. The server does not return the string for a request that carries a value.
func TestSDKv1WrongSecret(t *testing.T) {
	t.Parallel()
	s := startFixed(t, time.Now().UTC().Truncate(time.Second))
	c := connectV1("", "JSON")(t, s, wrong).(*v1)
	get := sdkkms.CreateGetSecretValueRequest()
	get.SecretName = "app/db"
	_, err := c.kms.GetSecretValue(get)
	var e *sdkerrors.ServerError
	if !errors.As(err, &e) ||
		e.ErrorCode() != "SignatureDoesNotMatch" ||
		e.Recommend() != "InvalidAccessKeySecret: Please check you AccessKeySecret" {
		t.Errorf("GetSecretValue with a wrong secret: %v; want the advice to check the secret", err)
	}
	put := sdkkms.CreatePutSecretValueRequest()
	put.SecretName, put.VersionId, put.SecretData = "app/db", "v1", "dummy-marker"
	_, err = c.kms.PutSecretValue(put)
	if !errors.As(err, &e) || e.ErrorCode() != "SignatureDoesNotMatch" || strings.Contains(e.Message(), "dummy-marker") ||
		strings.Contains(e.Message(), "string to sign") {
		t.Errorf("PutSecretValue with a wrong secret: %v; want SignatureDoesNotMatch without the string to sign", err)
	}
}

// TestSDKv1HostID verifies that an error names the host that was called.
func TestSDKv1HostID(t *testing.T) {
	t.Parallel()
	s := startFixed(t, time.Now().UTC().Truncate(time.Second))
	c := connectV1("", "JSON")(t, s, right).(*v1)
	get := sdkkms.CreateGetSecretValueRequest()
	get.SecretName = "none"
	_, err := c.kms.GetSecretValue(get)
	var e *sdkerrors.ServerError
	if !errors.As(err, &e) || e.HostId() != s.Endpoint {
		t.Errorf("HostId of %v; want %s", err, s.Endpoint)
	}
}
