package compat_test

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdkv3 "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/dara"
	"github.com/alibabacloud-go/tea/tea"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// TestSDKv3Modes verifies that the modes of TestSDKv3 send what their names say.
func TestSDKv3Modes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		config openapi.Config
		signed func(r *http.Request) bool
	}{
		{"default", openapi.Config{}, func(r *http.Request) bool {
			return strings.HasPrefix(r.Header.Get("Authorization"), "ACS3-HMAC-SHA256 ")
		}},
		{"signatureVersion v4", openapi.Config{SignatureVersion: tea.String("v4")}, func(r *http.Request) bool {
			return strings.HasPrefix(r.Header.Get("Authorization"), "ACS4-HMAC-SHA256 ")
		}},
		{"signatureAlgorithm v2", openapi.Config{SignatureAlgorithm: tea.String("v2")}, func(r *http.Request) bool {
			q := r.URL.Query()
			return r.Header.Get("Authorization") == "" && q.Get("Signature") != "" && q.Get("SignatureVersion") == "1.0"
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var seen atomic.Bool
			listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen.Store(tt.signed(r))
				w.Header().Set("Content-Type", "application/json")
				_, _ = w.Write([]byte("{}")) // the SDK sees a failure otherwise
			}))
			t.Cleanup(listener.Close)
			config := tt.config
			config.AccessKeyId, config.AccessKeySecret = tea.String("testid"), tea.String("testsecret")
			config.Endpoint = tea.String(strings.TrimPrefix(listener.URL, "http://"))
			config.RegionId = tea.String(region)
			config.Protocol = tea.String("http")
			c, err := sdkv3.NewClient(&config)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := c.DescribeRegions(); err != nil {
				t.Fatal(err)
			}
			if !seen.Load() {
				t.Error("the SDK signs in another way in this mode")
			}
		})
	}
}

// TestGenericXML verifies that the generic client gets XML by the header Accept, and parses an
// error in XML.
func TestGenericXML(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Second)
	s := startFixed(t, now)
	value := awkward(maxSecret)
	if _, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "app/db",
		VersionID:  "v1",
		SecretData: sensitive.New(value),
	}); err != nil {
		t.Fatal(err)
	}
	c, err := openapi.NewClient(v3Config(t, s, right, openapi.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	get := func(name string) (map[string]any, error) {
		return c.CallApi(&openapi.Params{
			Action:      tea.String("GetSecretValue"),
			Version:     tea.String(kms.Version),
			Protocol:    tea.String("HTTPS"),
			Pathname:    tea.String("/"),
			Method:      tea.String("POST"),
			AuthType:    tea.String("AK"),
			Style:       tea.String("RPC"),
			ReqBodyType: tea.String(inForm),
			BodyType:    tea.String("string"),
		}, &openapi.OpenApiRequest{
			Query:   map[string]*string{"SecretName": tea.String(name)},
			Headers: map[string]*string{"accept": tea.String("application/xml")},
		}, &dara.RuntimeOptions{})
	}
	result, err := get("app/db")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		XMLName                xml.Name `xml:"GetSecretValueResponse"`
		SecretData, CreateTime string
		VersionStages          struct{ VersionStage []string }
	}
	body, _ := result["body"].(string)
	if err := xml.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("answer in XML: %v", err)
	}
	if got.SecretData != value || got.CreateTime == "" || len(got.VersionStages.VersionStage) != 1 {
		t.Errorf("answer in XML: value equal %t, CreateTime %q, labels %v", got.SecretData == value,
			got.CreateTime, got.VersionStages.VersionStage)
	}
	_, err = get("none")
	te, ok := err.(*tea.SDKError)
	if !ok || tea.StringValue(te.Code) != "Forbidden.ResourceNotFound" || tea.IntValue(te.StatusCode) != 404 {
		t.Errorf("error in XML: the SDK shows %v; want Forbidden.ResourceNotFound, status 404", err)
	}
}

// TestPages walks the pages of ListTagResources and of ListSecrets, and stores an eleventh version.
func TestPages(t *testing.T) {
	t.Parallel()
	const secrets, tags = 11, 20
	s := startFixed(t, time.Now().UTC().Truncate(time.Second))
	c := connectV3(openapi.Config{})(t, s, right).(*v3).Client
	for i := range secrets {
		in := &kms.CreateSecretRequest{
			SecretName: fmt.Sprintf("app/%02d", i),
			VersionID:  "v1",
			SecretData: sensitive.New("dummy"),
		}
		for j := range tags {
			in.Tags = append(in.Tags, kms.Tag{TagKey: fmt.Sprintf("k%02d", j), TagValue: "v"})
		}
		if _, err := s.Client.CreateSecret(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}

	seen, pages := map[string]bool{}, 0
	for token := (*string)(nil); pages == 0 || tea.StringValue(token) != ""; pages++ {
		out, err := c.ListTagResources(&sdkv3.ListTagResourcesRequest{
			RegionId:     tea.String(region),
			ResourceType: tea.String("secret"),
			NextToken:    token,
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range out.Body.TagResources.TagResource {
			seen[*row.ResourceId+" "+*row.TagKey] = true
		}
		token = out.Body.NextToken
	}
	if pages != 2 || len(seen) != secrets*tags {
		t.Errorf("ListTagResources: %d pages with %d different rows; want 2 with %d", pages, len(seen), secrets*tags)
	}

	var names []string
	for page := int32(1); page <= 3; page++ {
		out, err := c.ListSecrets(&sdkv3.ListSecretsRequest{PageNumber: tea.Int32(page), PageSize: tea.Int32(5)})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range out.Body.SecretList.Secret {
			names = append(names, *row.SecretName)
		}
	}
	if len(names) != secrets || !slices.IsSorted(names) {
		t.Errorf("ListSecrets: %v; want %d names in order", names, secrets)
	}

	for i := 2; i <= 11; i++ {
		if _, err := c.PutSecretValue(&sdkv3.PutSecretValueRequest{
			SecretName: tea.String("app/00"),
			VersionId:  tea.String(fmt.Sprintf("v%d", i)),
			SecretData: tea.String("dummy"),
		}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := c.ListSecretVersionIds(&sdkv3.ListSecretVersionIdsRequest{
		SecretName:        tea.String("app/00"),
		IncludeDeprecated: tea.String("true"),
	})
	if err != nil {
		t.Fatal(err)
	}
	if rows := out.Body.VersionIds.VersionId; len(rows) != 10 ||
		*rows[0].VersionId != "v11" ||
		*rows[9].VersionId != "v2" {
		t.Errorf("after an eleventh version there are %d; want 10, from v11 to v2", len(rows))
	}
}
