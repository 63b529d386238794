package agent

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	openapi "github.com/alibabacloud-go/darabonba-openapi/v2/client"
	sdkv2 "github.com/alibabacloud-go/kms-20160120/v3/client"
	"github.com/alibabacloud-go/tea/tea"
	sdkv1 "github.com/aliyun/alibaba-cloud-sdk-go/services/kms"
)

// TestOfficialSDKs verifies that both official Go SDKs, unmodified and pointed at the agent, read
// on while the server is away.
func TestOfficialSDKs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	r := s.run(t, s.config(t, `
secrets: db
kms: {listen: "127.0.0.1:0"}
`))
	id, secret := s.server.Credentials.AccessKeyID, s.server.Credentials.AccessKeySecret.Reveal()
	v2, err := sdkv2.NewClient(&openapi.Config{
		Endpoint:        tea.String(r.at["kms"]),
		Protocol:        tea.String("http"),
		AccessKeyId:     tea.String(id),
		AccessKeySecret: tea.String(secret),
	})
	if err != nil {
		t.Fatal(err)
	}
	v1, err := sdkv1.NewClientWithAccessKey("local", id, secret)
	if err != nil {
		t.Fatal(err)
	}
	v1.Domain = r.at["kms"]
	read := func() string {
		two, err := v2.GetSecretValue(&sdkv2.GetSecretValueRequest{SecretName: tea.String("db")})
		if err != nil {
			return err.Error()
		}
		request := sdkv1.CreateGetSecretValueRequest()
		request.Scheme, request.SecretName = "http", "db"
		request.VersionStage, request.FetchExtendedConfig = "ACSCurrent", "true"
		one, err := v1.GetSecretValue(request)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(tea.StringValue(two.Body.SecretData) == one.SecretData, " ", one.VersionId, " ",
			strings.Join(one.VersionStages.VersionStage, ","), " ", one.SecretData)
	}
	const want = `true v1 ACSCurrent {"User":"app","Password":"marker-one"}`
	if got := read(); got != want {
		t.Errorf("with the server: %s", got)
	}
	if err := s.server.Stop(); err != nil {
		t.Fatal(err)
	}
	if got := read(); got != want {
		t.Errorf("without the server: %s", got)
	}
}

// TestSystemd verifies that systemd is notified when every value is available and every file is
// correct, and when the agent stops.
func TestSystemd(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	r := s.run(t, s.config(t, `files: [{path: DIR/one, template: '{{ member "db" "User" }}'}]`))
	receive := func() string {
		if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 256)
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	if got := receive(); got != "READY=1" || read(t, s.dir+"/one") != "app" {
		t.Errorf("notified %q, file %q", got, read(t, s.dir+"/one"))
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if got := receive(); got != "STOPPING=1" {
		t.Errorf("notified %q at the end", got)
	}
	t.Setenv("NOTIFY_SOCKET", "@keyturn-nobody-listens")
	if err := notifySystemd("READY=1"); err == nil {
		t.Error("a socket that no process has: no error")
	}
}
