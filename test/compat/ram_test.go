package compat_test

import (
	"encoding/xml"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	"github.com/alibabacloud-go/tea/dara"
	"github.com/alibabacloud-go/tea/tea"

	"github.com/keyturn/keyturn/ram"
)

// TestGenericRAM verifies that the generic client of the newer SDKs calls the user service under
// signature version 3, and reads its answers and errors in XML and in JSON.
func TestGenericRAM(t *testing.T) {
	t.Parallel()
	s := startFixed(t, time.Now().UTC().Truncate(time.Second))
	c, err := openapi.NewClient(v3Config(t, s, right, openapi.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	call := func(action, accept, kind string, query map[string]*string) (map[string]any, error) {
		return c.CallApi(&openapi.Params{
			Action:      tea.String(action),
			Version:     tea.String(ram.Version),
			Protocol:    tea.String("HTTPS"),
			Pathname:    tea.String("/"),
			Method:      tea.String("POST"),
			AuthType:    tea.String("AK"),
			Style:       tea.String("RPC"),
			ReqBodyType: tea.String(inForm),
			BodyType:    tea.String(kind),
		}, &openapi.OpenApiRequest{
			Query:   query,
			Headers: map[string]*string{"accept": tea.String(accept)},
		}, &dara.RuntimeOptions{})
	}
	user := map[string]*string{"UserName": tea.String("robot"), "Comments": tea.String("a=b & <c>")}
	out, err := call("CreateUser", "application/json", "json", user)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := out["body"].(map[string]any)
	made, _ := body["User"].(map[string]any)
	if made["UserName"] != "robot" || made["Comments"] != "a=b & <c>" || made["UserId"] == "" {
		t.Errorf("CreateUser in JSON: %v", out["body"])
	}
	out, err = call("GetUser", "application/xml", "string", map[string]*string{"UserName": user["UserName"]})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		XMLName xml.Name `xml:"GetUserResponse"`
		User    struct{ UserName, Comments string }
	}
	text, _ := out["body"].(string)
	if err := xml.Unmarshal([]byte(text), &got); err != nil ||
		got.User.UserName != "robot" ||
		got.User.Comments != "a=b & <c>" {
		t.Errorf("GetUser in XML: %+v, %v", got, err)
	}
	_, err = call("GetUser", "application/xml", "string", map[string]*string{"UserName": tea.String("none")})
	if e, ok := err.(*tea.SDKError); !ok ||
		tea.StringValue(e.Code) != "EntityNotExist.User" ||
		tea.IntValue(e.StatusCode) != 404 {
		t.Errorf("an error in XML: the SDK shows %v; want EntityNotExist.User, status 404", err)
	}
}
