package compat_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// Headers as captured from the official tools (protocol.md section 12). HOST is where the vector
// does not sign it.
const (
	cliHeaders = "Host: HOST\r\n" +
		"User-Agent: AlibabaCloud (linux; amd64) Golang/1.24.4 Core/0.0.1 Aliyun-CLI/3.0.299\r\n" +
		"Content-Length: 0\r\n" +
		"Accept-Encoding: identity\r\n" +
		"Content-Type: application/x-www-form-urlencoded\r\n" +
		"x-acs-action: ACTION\r\n" +
		"x-acs-credentials-provider: static_sts\r\n" +
		"x-acs-version: 2016-01-20\r\n" +
		"x-sdk-client: golang/1.0.0\r\n" +
		"x-sdk-core-version: 0.0.1\r\n" +
		"x-sdk-invoke-type: common\r\n"
	v3Headers = "Host: kms.example.test\r\n" +
		"User-Agent: AlibabaCloud (linux; amd64) Golang/1.24.4 Core/0.01 TeaDSL/2\r\n" +
		"accept: application/json\r\n" +
		"x-acs-date: 2026-01-02T03:04:05Z\r\n" +
		"x-acs-signature-nonce: 3156853299f313e23d1673dc12e1703d\r\n" +
		"x-acs-version: 2016-01-20\r\n"
	emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	formType    = "application/x-www-form-urlencoded"
)

// secretRead is the answer to the reads of the vectors.
const secretRead = `{"SecretName":"my/secret","SecretType":"Generic","SecretData":"dummy","SecretDataType":"text","VersionId":"v1","VersionStages":{"VersionStage":["ACSCurrent"]},"CreateTime":"NOW","RequestId":"ID"}`

// replays are requests, byte for byte, with the time at which their signature holds. NOW and ID
// in an answer are the server's time and the request's ID.
var replays = []struct {
	name, at, request string
	status            int
	answer            string // JSON, or for a refusal its code and the beginning of its message
}{
	{
		"1.1 GET, the documented example", "2016-03-28T03:13:08Z",
		"GET /?AccessKeyId=testid&Action=CreateKey&Format=json&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&Timestamp=2016-03-28T03%3A13%3A08Z&Version=2016-01-20&Signature=41wk2SSX1GJh7fwnc5eqOfiJPFg%3D HTTP/1.1\r\nHost: HOST\r\n\r\n",
		400, "UnsupportedOperation This operation is not supported.",
	},
	{
		"1.2 CLI, GetSecretValue", "2026-11-23T07:02:51Z",
		"POST /?AccessKeyId=testid&Action=GetSecretValue&Format=JSON&RegionId=cn-hangzhou&SecretName=my%2Fsecret&Signature=qMp6b%2FvKvxzKL0dbFpI26i1iCZU%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=05345f00385d74f08091daaf500f18a8&SignatureType=&SignatureVersion=1.0&Timestamp=2026-11-23T07%3A02%3A51Z&Version=2016-01-20 HTTP/1.1\r\n" +
			strings.Replace(cliHeaders, "ACTION", "GetSecretValue", 1) + "\r\n",
		200, secretRead,
	},
	{
		"1.4 Terraform, CreateSecret with an illegal name", "2026-11-23T07:21:41Z",
		form("POST /?AccessKeyId=testid&Action=CreateSecret&Format=json&Signature=80TWhRVsm1ltT%2FVZqhyAa3bcR6M%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=c9a58dba993424989057b5a42bcac9fc&SignatureVersion=1.0&Timestamp=2026-11-23T07%3A21%3A41Z&Version=2016-01-20",
			"Host: HOST\r\nUser-Agent: AlibabaCloud (linux; amd64) Golang/1.24.4 Core/0.01 TeaDSL/1 HashiCorp-Terraform/1.9.8\r\nx-acs-action: CreateSecret\r\nx-acs-version: 2016-01-20\r\nAccept-Encoding: gzip\r\n", formType,
			"Description=&EnableAutomaticRotation=true&SecretData=%C3%A9%E4%B8%AD+%22x%22+%26+%3D+%25+~+%2A+%2B&SecretName=a+b%2F%2B%3D.%40-_~%2A&Tag.1.Key=k&Tag.1.Value=v&VersionId=v1"),
		400, `InvalidParameter The specified parameter "SecretName" is not valid.`,
	},
	{
		"3.1 V2 SDK, GetSecretValue", "2026-01-02T03:04:05Z",
		"POST /?SecretName=my%2Fsecret&VersionStage=ACSCurrent HTTP/1.1\r\n" + v3Headers +
			"Content-Length: 0\r\nx-acs-action: GetSecretValue\r\nx-acs-content-sha256: " + emptySHA256 + "\r\n" +
			"Authorization: ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=2cfd1237ece57b3231987488f3510662e2ade557c7907e8fa8b110c8ff064126\r\n\r\n",
		200, secretRead,
	},
	{
		"3.3 V2 SDK, form body", "2026-01-02T03:04:05Z",
		form("POST /", v3Headers+"x-acs-action: SetSecretPolicy\r\nx-acs-content-sha256: 0231061bd38a437b2033f5625c843cca4e54bb1c0ffd1549a45843bfa815921a\r\n"+
			"Authorization: ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=content-type;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=ebbbc7c849d71874f744397a90ce4185c00699504fe24c0cc96c2c629bd94d78\r\n",
			formType, "PolicyName=default&SecretName=my%2Fsecret"),
		400, `MissingParameter The parameter "Policy" is needed but not provided.`,
	},
	{
		"3.4 V2 generic client, JSON body", "2026-01-02T03:04:05Z",
		form("POST /", v3Headers+"x-acs-action: GetSecretValue\r\nx-acs-content-sha256: c4b8ffa9ccb0a69c7c7cfbd2de7ba12187dfba1ec1dc9783daa482d1ca9d4374\r\n"+
			"Authorization: ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=content-type;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=98e30e2bc0f819be8c87bfad94a6c794ec6fe9f80a947c7be4c090c325fcfb07\r\n",
			"application/json; charset=utf-8", `{"SecretName":"my/secret"}`),
		200, secretRead,
	},
	{
		"4.1 V2 SDK, signature version 4", "2026-01-02T03:04:05Z",
		"POST /?SecretName=my%2Fsecret&VersionStage=ACSCurrent HTTP/1.1\r\n" + v3Headers +
			"Content-Length: 0\r\nx-acs-action: GetSecretValue\r\nx-acs-content-sha256: " + emptySHA256 + "\r\n" +
			"Authorization: ACS4-HMAC-SHA256 Credential=testid/20260102/cn-hangzhou/Kms/aliyun_v4_request,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,Signature=84910a2c461d698ba94d343df9805b852c841ab76ab201802a9798b30e75ace7\r\n\r\n",
		200, secretRead,
	},
}

// form is a request with a body.
func form(line, headers, contentType, body string) string {
	return fmt.Sprintf("%s HTTP/1.1\r\n%sContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", line, headers, contentType, len(body), body)
}

// TestReplay sends captured requests over plain TCP. Each is answered once; sent again it is a
// replay, and with one character of its signature changed it does not verify.
func TestReplay(t *testing.T) {
	t.Parallel()
	for _, tt := range replays {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at, err := time.Parse(wire.TimeFormat, tt.at)
			if err != nil {
				t.Fatal(err)
			}
			s := startFixed(t, at)
			if _, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{SecretName: "my/secret", VersionID: "v1", SecretData: sensitive.New("dummy")}); err != nil {
				t.Fatal(err)
			}
			request := strings.Replace(tt.request, "HOST", s.HTTPEndpoint, 1)
			status, body := send(t, s, request)
			if status != tt.status || !matches(t, body, tt.answer, tt.at) {
				t.Errorf("answer: %d %s; want %d %s", status, body, tt.status, tt.answer)
			}
			if status, body = send(t, s, request); status != 400 || !matches(t, body, "SignatureNonceUsed Specified signature nonce was used already.", "") {
				t.Errorf("answer to the same request again: %d %s; want 400 SignatureNonceUsed", status, body)
			}
			if status, body = send(t, s, forged(request)); status != 400 || !matches(t, body, "SignatureDoesNotMatch Specified signature ", "") {
				t.Errorf("answer to another signature: %d %s; want 400 SignatureDoesNotMatch", status, body)
			}
		})
	}
}

// forged changes the first character of the signature.
func forged(request string) string {
	head, tail, _ := strings.Cut(request, "Signature=")
	first := "0"
	if tail[0] == '0' {
		first = "1"
	}
	return head + "Signature=" + first + tail[1:]
}

// send writes a request as it is and reads the answer.
func send(t *testing.T, s *keyturntest.Server, request string) (int, string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.HTTPEndpoint, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // a TCP connection has deadlines
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read the answer: %v", err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json;charset=utf-8" {
		t.Errorf("Content-Type %q; want JSON", got)
	}
	return resp.StatusCode, string(body)
}

// matches holds a body against the JSON that is wanted, or against a code and the beginning of a
// message.
func matches(t *testing.T, body, want, now string) bool {
	t.Helper()
	var got struct{ RequestId, Code, Message, HostId string }
	if err := json.Unmarshal([]byte(body), &got); err != nil || !requestID.MatchString(got.RequestId) {
		return false
	}
	if strings.HasPrefix(want, "{") {
		return body == strings.NewReplacer("NOW", now, "ID\"}", got.RequestId+"\"}").Replace(want)
	}
	code, message, _ := strings.Cut(want, " ")
	return got.Code == code && strings.HasPrefix(got.Message, message) && got.HostId != ""
}
