package badinput_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/keyturntest"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/test/support"
)

// row is a bad request and the one right answer.
type row struct{ name, request, want string }

// senders is how many requests are under way at a time.
const senders = 4

// endsEarly are the rows whose request is not whole: without an end of the connection, the server
// would wait for the rest.
var endsEarly = map[string]bool{
	"no bytes": true, "a head that ends early": true, "a length of a terabyte": true,
	"a body shorter than its length": true,
	"a chunk that ends early":        true, "no last chunk": true,
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	log := &support.Log{}
	dir := t.TempDir()
	s := keyturntest.Start(t, keyturntest.WithDataDir(dir), server.Change(func(c *server.Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}))
	k := kit{s, new(atomic.Int64)}
	if _, err := s.Client.CreateSecret(t.Context(), &kms.CreateSecretRequest{
		SecretName: "good",
		VersionID:  "v1",
		SecretData: sensitive.New(marker),
	}); err != nil {
		t.Fatal(err)
	}
	var rows []row
	for _, group := range []func(kit) []row{
		framing, methodsAndPaths, decoding, version1, version3, version4, secretParameters, otherParameters,
	} {
		rows = append(rows, group(k)...)
	}
	names := map[string]bool{}
	queue := make(chan row)
	var all sync.WaitGroup
	for range senders {
		all.Go(func() {
			for r := range queue {
				got, answer := send(s.HTTPEndpoint, r.request, endsEarly[r.name])
				if got != r.want {
					report(t, r.name, r.request, r.want, got, answer)
				}
				if strings.HasPrefix(got, "5") && !strings.HasPrefix(r.want, "5") || strings.HasPrefix(got, "500") {
					t.Errorf("%s: a fault of the server: %s", r.name, got)
				}
			}
		})
	}
	for _, r := range rows {
		if names[r.name] {
			t.Errorf("two rows are named %q", r.name)
		}
		names[r.name] = true
		queue <- r
	}
	close(queue)
	all.Wait()
	again := replays(k)
	for _, r := range again {
		if got, answer := send(s.HTTPEndpoint, r.request, false); got != "200 OK" {
			report(t, r.name+", sent once", r.request, "200 OK", got, answer)
		}
		if got, answer := send(s.HTTPEndpoint, r.request, false); got != r.want {
			report(t, r.name+", sent again", r.request, r.want, got, answer)
		}
	}
	t.Logf("%d bad requests", len(rows)+len(again))
	if len(rows) < 150 {
		t.Errorf("only %d rows", len(rows))
	}
	afterwards(t, s, log, dir)
}

// replays are good once.
func replays(k kit) []row {
	const used = "400 SignatureNonceUsed"
	today := time.Now().UTC().Format("20060102")
	return []row{
		{"v1", k.v1("GET", "ListSecrets", nil, nil, nil), used},
		{"v1 without a nonce", k.v1("GET", "ListSecrets", nil, func(p map[string]string) {
			delete(p, "SignatureNonce")
		}, nil), used},
		{"v3", k.v3("ListSecrets", nil, nil), used},
		{"v4", k.v3("ListSecrets", nil, func(a *acs) {
			a.scheme, a.scope = "ACS4-HMAC-SHA256", today+"/local/Kms/aliyun_v4_request"
		}), used},
	}
}

// afterwards verifies that the server serves a good request promptly, and that neither its log
// nor its trail has any part of a value.
func afterwards(t *testing.T, s *keyturntest.Server, log *support.Log, dir string) {
	t.Helper()
	begin := time.Now()
	got, err := s.Client.GetSecretValue(t.Context(), &kms.GetSecretValueRequest{SecretName: "good"})
	if err != nil || got.SecretData.Reveal() != marker || got.VersionID != "v1" || len(got.VersionStages) != 1 {
		t.Errorf("a good request afterwards: %+v, %v", got, err)
	}
	if took := time.Since(begin); took > 10*time.Second { // a busy machine takes seconds
		t.Errorf("a good request took %v afterwards", took)
	}
	if list, err := s.Client.ListSecrets(t.Context(), &kms.ListSecretsRequest{}); err != nil || list.TotalCount != 1 {
		t.Errorf("bad requests have made secrets: %+v, %v", list, err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), marker) || strings.Contains(log.String(), s.Credentials.AccessKeySecret.Reveal()) {
		t.Errorf("a value is in the log:\n%s", log)
	}
	if strings.Contains(log.String(), "panic") {
		t.Errorf("the server panicked:\n%s", log)
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no trail: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil || bytes.Contains(data, []byte(marker)) {
			t.Errorf("%s holds a value: %v", file, err)
		}
	}
	if _, err := audit.Verify(filepath.Join(dir, "audit")); err != nil {
		t.Error(err)
	}
}

// Outcomes, as send gives them.
const (
	plain400   = "400 plain"
	incomplete = "400 IncompleteSignature"
	mismatch   = "400 SignatureDoesNotMatch"
	malformed  = "400 ParseRequestParameterException"
	invalid    = "400 InvalidParameter"
	missing    = "400 MissingParameter"
	method     = "403 UnsupportedHTTPMethod"
	noAction   = "404 InvalidAction.NotFound"
	notFound   = "404 Forbidden.ResourceNotFound"
	noKey      = "404 Forbidden.KeyNotFound"
	limit      = "400 Rejected.LimitExceeded"
	exists     = "409 Rejected.ResourceExist"
	inUse      = "409 Rejected.ResourceInUse"
	notHere    = "400 UnsupportedOperation"
)

// framing is HTTP itself. What net/http refuses has a plain answer; what it takes has no signature.
func framing(k kit) []row {
	host := "Host: " + k.s.HTTPEndpoint + "\r\n"
	form := "Content-Type: " + formType + "\r\n"
	chunked := func(body string) string {
		return "POST / HTTP/1.1\r\n" + host + form + "Transfer-Encoding: chunked\r\n\r\n" + body
	}
	header := func(lines string) string { return "GET / HTTP/1.1\r\n" + host + lines + "\r\n" }
	body := func(lines, body string) string { return "POST / HTTP/1.1\r\n" + host + form + lines + "\r\n" + body }
	smuggled := "GET /?Action=ListSecrets HTTP/1.1\r\nHost: x\r\n\r\n"
	return []row{
		{"no bytes", "", "closed"},
		{"binary", "\x00\x01\x02\x03\r\n\r\n", plain400},
		{"a TLS hello on the plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", plain400},
		{"HTTP/0.9", "GET /\r\n\r\n", plain400},
		{"HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n", incomplete},
		{
			"HTTP/1.0 with chunks",
			"POST / HTTP/1.0\r\n" + host + form + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			incomplete,
		},
		{"HTTP/2.0 in a request line", "GET / HTTP/2.0\r\n" + host + "\r\n", "505 plain"},
		{"HTTP/3.0", "GET / HTTP/3.0\r\n" + host + "\r\n", "505 plain"},
		{"HTTP/1.10", "GET / HTTP/1.10\r\n" + host + "\r\n", plain400},
		{"a lower-case version", "GET / http/1.1\r\n" + host + "\r\n", plain400},
		{"a preface of HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", method},
		{"a request line of four words", "GET / x HTTP/1.1\r\n" + host + "\r\n", plain400},
		{"a request line of one word", "GET\r\n" + host + "\r\n", plain400},
		{"no method", " / HTTP/1.1\r\n" + host + "\r\n", plain400},
		{"line feeds alone", "GET / HTTP/1.1\nHost: x\n\n", incomplete},
		{"a head that ends early", "GET / HTTP/1.1\r\n" + host, plain400},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", plain400},
		{"two Hosts", header("Host: other\r\n"), plain400},
		{"a Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", plain400},
		{"a Host with a slash and a quote", "GET / HTTP/1.1\r\nHost: a\"/b\r\n\r\n", plain400},
		{"absolute form", "GET http://elsewhere.test/?SecretData=" + marker + " HTTP/1.1\r\n" + host + "\r\n", incomplete},
		{"absolute form of another scheme", "GET file:///etc/passwd HTTP/1.1\r\n" + host + "\r\n", noAction},
		{"authority form", "CONNECT elsewhere.test:443 HTTP/1.1\r\n" + host + "\r\n", method},
		{"asterisk form", "OPTIONS * HTTP/1.1\r\n" + host + "\r\n", method},
		{"asterisk with GET", "GET * HTTP/1.1\r\n" + host + "\r\n", noAction},
		{"NUL in the request line", "GET /\x00 HTTP/1.1\r\n" + host + "\r\n", plain400},
		{"DEL in the request line", "GET /\x7f HTTP/1.1\r\n" + host + "\r\n", plain400},
		{"NUL in a header's value", header("X-A: a\x00b\r\n"), plain400},
		{"NUL in a header's name", header("X\x00A: b\r\n"), plain400},
		{"a control character in a header", header("X-A: a\x01b\r\n"), plain400},
		{"a carriage return in a header", header("X-A: a\rb\r\n"), plain400},
		{"a header without a colon", header("nonsense\r\n"), plain400},
		{"a header without a name", header(": value\r\n"), plain400},
		{"a space in a header's name", header("X A: b\r\n"), plain400},
		{"a space before the colon", header("X-A : b\r\n"), plain400},
		{"a first header that is folded", "GET / HTTP/1.1\r\n folded: x\r\n" + host + "\r\n", plain400},
		{"a folded header", header("X-A: a\r\n b\r\n"), incomplete},
		{"10,000 headers", header(strings.Repeat("X-A: b\r\n", 10_000)), incomplete},
		{"headers of 2 MiB", header(strings.Repeat("X-A: "+strings.Repeat("b", 1000)+"\r\n", 2100)), "431 plain"},
		{"a header of 2 MiB", header("X-A: " + strings.Repeat("b", 2<<20) + "\r\n"), "431 plain"},
		{"a request line of 2 MiB", "GET /?a=" + strings.Repeat("b", 2<<20) + " HTTP/1.1\r\n" + host + "\r\n", "431 plain"},
		{"two lengths", body("Content-Length: 3\r\nContent-Length: 4\r\n", "a=bc"), plain400},
		{"the same length twice", body("Content-Length: 3\r\nContent-Length: 3\r\n", "a=b"), incomplete},
		{"two lengths in one", body("Content-Length: 3, 4\r\n", "a=bc"), plain400},
		{"a negative length", body("Content-Length: -1\r\n", ""), plain400},
		{"a length with a sign", body("Content-Length: +3\r\n", "a=b"), plain400},
		{"a hexadecimal length", body("Content-Length: 0x3\r\n", "a=b"), plain400},
		{"a length of 30 digits", body("Content-Length: 999999999999999999999999999999\r\n", "a=b"), plain400},
		{"an empty length", body("Content-Length: \r\n", "a=b"), plain400},
		{"a length of a terabyte", body("Content-Length: 1099511627776\r\n", "a=b"), malformed},
		{"a body shorter than its length", body("Content-Length: 10\r\n", "a=b"), malformed},
		{"length and chunks", body("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"+smuggled), incomplete},
		{
			"chunks and a length that hides a request",
			body("Transfer-Encoding: chunked\r\nContent-Length: 99\r\n", "0\r\n\r\n"+smuggled),
			incomplete,
		},
		{"chunks twice", body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "501 plain"},
		{"chunks twice in one", body("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), "501 plain"},
		{"an unknown coding", body("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), "501 plain"},
		{"identity as a coding", body("Transfer-Encoding: identity\r\n", "a=b"), "501 plain"},
		{"gzip and chunks", body("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), "501 plain"},
		{"a space before the coding's colon", body("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), plain400},
		{"a tab before the coding", body("Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n"), incomplete},
		{"a vertical tab before the coding", body("Transfer-Encoding: \vchunked\r\n", "0\r\n\r\n"), plain400},
		{"a folded coding", body("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), incomplete},
		{"a chunk size that is no number", chunked("zz\r\na=b\r\n0\r\n\r\n"), malformed},
		{"an empty chunk size", chunked("\r\na=b\r\n0\r\n\r\n"), malformed},
		{"a negative chunk size", chunked("-1\r\na=b\r\n0\r\n\r\n"), malformed},
		{"a chunk size with 0x", chunked("0x3\r\na=b\r\n0\r\n\r\n"), malformed},
		{"a chunk size of 17 digits", chunked("fffffffffffffffff\r\na=b\r\n0\r\n\r\n"), malformed},
		{"a chunk longer than its size", chunked("3\r\na=bc\r\n0\r\n\r\n"), malformed},
		{"a chunk that ends early", chunked("a\r\na=b"), malformed},
		{"no last chunk", chunked("3\r\na=b\r\n"), malformed},
		{"a chunk extension of 100 KB", chunked("3;" + strings.Repeat("x", 100_000) + "\r\na=b\r\n0\r\n\r\n"), malformed},
		{"a MiB and a byte in one-byte chunks", chunked(strings.Repeat("1\r\na\r\n", 1<<20+1) + "0\r\n\r\n"), malformed},
		{
			"a signature in a trailer",
			chunked("3\r\na=b\r\n0\r\nAuthorization: ACS3-HMAC-SHA256 " + marker + "\r\n\r\n"),
			incomplete,
		},
		{"a bad trailer", chunked("3\r\na=b\r\n0\r\nbad trailer\r\n\r\n"), malformed},
		{"an unknown expectation", body("Expect: 200-ok\r\nContent-Length: 0\r\n", ""), "417"},
		{
			"an upgrade to HTTP/2",
			header("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
			incomplete,
		},
		{
			"an upgrade to a web socket",
			header("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
			incomplete,
		},
		{"another method by header", header("X-HTTP-Method-Override: DELETE\r\n"), incomplete},
		{"another path by header", header("X-Original-URL: /metrics\r\nX-Rewrite-URL: /metrics\r\n"), incomplete},
		{"ranges", header("Range: bytes=" + strings.Repeat("0-1,", 5000) + "0-1\r\n"), incomplete},
	}
}

func methodsAndPaths(k kit) []row {
	var rows []row
	for _, m := range []string{"PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "GETX", "get", "post", "PROPFIND"} {
		rows = append(rows, row{"method " + m, k.raw(m + " / HTTP/1.1"), method})
	}
	rows = append(rows,
		row{"method HEAD", k.raw("HEAD / HTTP/1.1"), "403"},
		row{"a method with a bracket", k.raw("G(ET / HTTP/1.1"), plain400},
		row{"a signed request with PUT", k.v1("PUT", "ListSecrets", nil, nil, nil), method},
		row{
			"SetSecretPolicy with GET",
			k.v1("GET", "SetSecretPolicy", map[string]string{"SecretName": "good", "Policy": "{}"}, nil, nil),
			method,
		},
	)
	for _, path := range []string{
		"/x",
		"//",
		"/./",
		"/../",
		"/%2e/",
		"/;x",
		"/%00",
		"/index.html",
		"/healthz/",
		"/metrics/x",
		"/#a",
		"/Metrics",
		"/%2Fmetrics",
		"/" + strings.Repeat("a/", 5000),
	} {
		name := path
		if len(name) > 20 {
			name = name[:20]
		}
		rows = append(rows, row{"path " + name, k.raw("GET " + path + " HTTP/1.1"), noAction})
	}
	return append(rows,
		row{"a path that is not percent-encoded", k.raw("GET /%zz HTTP/1.1"), plain400},
		row{"a path without a slash", k.raw("GET x HTTP/1.1"), plain400},
	)
}

func decoding(k kit) []row {
	get := func(query string) string { return k.raw("GET /?" + query + " HTTP/1.1") }
	many := ""
	for i := range 2001 {
		many += fmt.Sprintf("p%d=x&", i)
	}
	jsonBody := func(body string) string {
		return k.v3("GetSecretValue", nil, func(a *acs) { a.contentType, a.body = jsonType, body })
	}
	manyMembers := "{"
	for i := range 2001 {
		manyMembers += fmt.Sprintf(`"p%d":1,`, i)
	}
	return []row{
		{"a percent sign alone", get("a=%"), malformed},
		{"half an escape", get("a=%4"), malformed},
		{"an escape that is not hexadecimal", get("a=%zz" + marker), malformed},
		{"a name with a bad escape", get("%zz=a"), malformed},
		{"a byte that is not UTF-8", get("a=%ff"), malformed},
		{"an overlong form", get("a=%c0%af"), malformed},
		{"half a surrogate pair", get("a=%ed%a0%80"), malformed},
		{"beyond Unicode", get("a=%f4%90%80%80"), malformed},
		{"a raw byte that is not UTF-8", get("a=\xff"), malformed},
		{"2001 parameters", get(many), malformed},
		{"a parameter twice", get("a=" + marker + "&a=" + marker), invalid},
		{"a parameter twice in two spellings", get("Action=x&%41ction=y"), invalid},
		{"a parameter without a name", get("=a"), malformed},
		{"a parameter without a value, twice", get("a&a"), invalid},
		{"a long name twice", get(strings.Repeat("n", 5000) + "=1&" + strings.Repeat("n", 5000) + "=2"), invalid},
		{"nothing but separators", get("&&&;&"), incomplete},
		{"a name of a megabyte less a bit", get(strings.Repeat("n", 1_000_000)), incomplete},
		{"NUL as a name", get("%00=%00"), incomplete},
		{"query and form with the same name", k.post("/?a=1", formType, "a=2"), invalid},
		{"a form with a bad escape", k.post("/", formType, "SecretData="+marker+"%zz"), malformed},
		{"a form that is not UTF-8", k.post("/", formType, "a=\xff\xfe"), malformed},
		{"a form of 2001 parameters", k.post("/", formType, many), malformed},
		{"a form over a megabyte", k.post("/", formType, "a="+strings.Repeat("x", 1<<20)), malformed},
		{"a body without a type", k.post("/", "", "a="+marker), malformed},
		{"a multipart body", k.post("/", "multipart/form-data; boundary=x", "--x\r\nContent-Disposition: form-data; "+
			"name=\"a\"\r\n\r\nb\r\n--x--\r\n"), malformed},
		{"a text body", k.post("/", "text/plain", "a=b"), malformed},
		{
			"an XML body",
			k.post("/", "application/xml", `<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>`),
			malformed,
		},
		{"a type that is no type", k.post("/", ";;;", "a=b"), malformed},
		{"two types", k.post("/", formType, "a=b", "Content-Type: text/plain"), incomplete},
		{"a form that is said to be gzip", k.post("/", formType, "\x1f\x8b\x08\x00", "Content-Encoding: gzip"), malformed},
		{
			"a JSON body under version 1",
			k.post("/?"+k.signV1("POST", map[string]string{"Action": "ListSecrets"}), jsonType, "{}"),
			malformed,
		},
		{"a JSON body without a signature", k.post("/", jsonType, `{"SecretData":"`+marker+`"}`), malformed},
		{"a JSON list", jsonBody(`[]`), malformed},
		{"a JSON string", jsonBody(`"` + marker + `"`), malformed},
		{"JSON null", jsonBody(`null`), malformed},
		{"a JSON object that does not end", jsonBody(`{"SecretName":"good"`), malformed},
		{"two JSON objects", jsonBody(`{"SecretName":"good"}{}`), malformed},
		{"something behind a JSON object", jsonBody(`{"SecretName":"good"} x`), malformed},
		{"JSON with a comma too many", jsonBody(`{"SecretName":"good",}`), malformed},
		{"JSON with single quotes", jsonBody(`{'SecretName':'good'}`), malformed},
		{"JSON with a bare name", jsonBody(`{SecretName:"good"}`), malformed},
		{"JSON that is not UTF-8", jsonBody("{\"SecretName\":\"\xff\"}"), malformed},
		{"JSON with a byte order mark", jsonBody("\ufeff{}"), malformed},
		{"JSON in UTF-16", jsonBody("{\x00}\x00"), malformed},
		{"JSON with a control character", jsonBody("{\"SecretName\":\"a\x00b\"}"), malformed},
		{"JSON with a bad escape", jsonBody(`{"SecretName":"\q"}`), malformed},
		{"JSON with a member twice", jsonBody(`{"SecretName":"good","SecretName":"good"}`), invalid},
		{"JSON with a member twice in two spellings", jsonBody(`{"SecretName":"good","Secret\u004eame":"good"}`), invalid},
		{
			"JSON nested 20,000 deep",
			jsonBody(`{"SecretName":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}`),
			malformed,
		},
		{"JSON of 2001 members", jsonBody(manyMembers + `"z":1}`), malformed},
		{"a JSON member that the query has too", k.v3("GetSecretValue", map[string]string{"SecretName": "good"},
			func(a *acs) { a.contentType, a.body = jsonType, `{"SecretName":"good"}` }), invalid},
		{"a JSON number for a name", jsonBody(`{"SecretName":17}`), notFound},
		{"a JSON object for a name", jsonBody(`{"SecretName":{"a":1}}`), invalid},
		{"JSON null for a name", jsonBody(`{"SecretName":null}`), missing},
		{"half a surrogate pair in JSON", jsonBody(`{"SecretName":"\ud800"}`), invalid},
		{"common parameters in JSON", k.post("/", jsonType, `{"Action":"ListSecrets","Signature":"`+marker+`"}`), malformed},
	}
}

func version1(k kit) []row {
	list := func(before func(map[string]string)) string { return k.v1("GET", "ListSecrets", nil, before, nil) }
	set := func(name, value string) string { return list(func(p map[string]string) { p[name] = value }) }
	without := func(name string) string { return list(func(p map[string]string) { delete(p, name) }) }
	sent := func(old, new string) string {
		return k.v1("GET", "ListSecrets", nil, nil, func(q string) string { return strings.Replace(q, old, new, 1) })
	}
	signature := func(change func(string) string) string {
		return k.v1("GET", "ListSecrets", nil, nil, func(q string) string {
			head, tail, _ := strings.Cut(q, "Signature=")
			value, rest, _ := strings.Cut(tail, "&")
			return head + "Signature=" + change(value) + "&" + rest
		})
	}
	other := kit{&keyturntest.Server{HTTPEndpoint: k.s.HTTPEndpoint, Credentials: k.s.Credentials}, k.nonces}
	other.s.Credentials.AccessKeySecret = sensitive.New("wrong " + marker)
	return []row{
		{"v1 without AccessKeyId", without("AccessKeyId"), "400 MissingAccessKeyId"},
		{"v1 with an empty AccessKeyId", set("AccessKeyId", ""), "400 MissingAccessKeyId"},
		{"v1 with an unknown AccessKeyId", set("AccessKeyId", "KTunknown"), "404 InvalidAccessKeyId.NotFound"},
		{
			"v1 with an AccessKeyId in lower case",
			set("AccessKeyId", strings.ToLower(k.s.Credentials.AccessKeyID)),
			"404 InvalidAccessKeyId.NotFound",
		},
		{"v1 with a path as AccessKeyId", set("AccessKeyId", "../meta"), "404 InvalidAccessKeyId.NotFound"},
		{
			"v1 with NUL in AccessKeyId",
			set("AccessKeyId", k.s.Credentials.AccessKeyID+"\x00"),
			"404 InvalidAccessKeyId.NotFound",
		},
		{
			"v1 with an AccessKeyId of 100 KB",
			set("AccessKeyId", strings.Repeat("k", 100_000)),
			"404 InvalidAccessKeyId.NotFound",
		},
		{"v1 with a temporary AccessKeyId", set("AccessKeyId", "STS.unknown"), "404 InvalidAccessKeyId.NotFound"},
		{"v1 without Timestamp", without("Timestamp"), "400 IllegalTimestamp"},
		{"v1 with a time of other form", set("Timestamp", "Mon, 02 Jan 2006 15:04:05 GMT"), "400 IllegalTimestamp"},
		{"v1 with fractions of a second", set("Timestamp", strings.TrimSuffix(stamp(0), "Z")+".5Z"), "400 IllegalTimestamp"},
		{"v1 with an offset", set("Timestamp", strings.TrimSuffix(stamp(0), "Z")+"+00:00"), "400 IllegalTimestamp"},
		{"v1 with a small z", set("Timestamp", strings.ToLower(stamp(0))), "400 IllegalTimestamp"},
		{"v1 with seconds since 1970", set("Timestamp", fmt.Sprint(time.Now().Unix())), "400 IllegalTimestamp"},
		{"v1 with the 30th of February", set("Timestamp", "2026-02-30T00:00:00Z"), "400 IllegalTimestamp"},
		{"v1 with the year 10000", set("Timestamp", "10000-01-01T00:00:00Z"), "400 IllegalTimestamp"},
		{"v1 of 16 minutes ago", set("Timestamp", stamp(16*time.Minute)), "400 InvalidTimeStamp.Expired"},
		{"v1 of 16 minutes ahead", set("Timestamp", stamp(-16*time.Minute)), "400 InvalidTimeStamp.Expired"},
		{"v1 of the year 1", set("Timestamp", "0001-01-01T00:00:00Z"), "400 InvalidTimeStamp.Expired"},
		{"v1 of the year 9999", set("Timestamp", "9999-12-31T23:59:59Z"), "400 InvalidTimeStamp.Expired"},
		{"v1 without Version", without("Version"), "400 InvalidVersion"},
		{"v1 with another Version", set("Version", "2016-01-21"), "400 InvalidVersion"},
		{"v1 without Action", without("Action"), noAction},
		{"v1 with an unknown Action", set("Action", "NoSuchThing"), noAction},
		{"v1 with an Action in lower case", set("Action", "listsecrets"), noAction},
		{"v1 with an Action of the other service", set("Action", "GetCallerIdentity"), noAction},
		{"v1 with an Action of 100 KB", set("Action", strings.Repeat("a", 100_000)), noAction},
		{"v1 with NUL in Action", set("Action", "ListSecrets\x00"), noAction},
		{"v1 with an Action that is not here", set("Action", "CreateKey"), notHere},
		{"v1 with the token service and an unknown Action", list(func(p map[string]string) {
			p["Version"], p["Action"] = kms.STSVersion, "AssumeRole"
		}), noAction},
		{"v1 without SignatureVersion", without("SignatureVersion"), incomplete},
		{"v1 with SignatureVersion 2.0", set("SignatureVersion", "2.0"), incomplete},
		{"v1 with SignatureMethod MD5", set("SignatureMethod", "HMAC-MD5"), incomplete},
		{"v1 with SignatureMethod none", set("SignatureMethod", "none"), incomplete},
		{"v1 with SignatureType BEARERTOKEN", set("SignatureType", "BEARERTOKEN"), incomplete},
		{
			"v1 with a bearer token alone",
			k.raw("GET /?Action=ListSecrets&Version=2016-01-20&BearerToken=" + marker + " HTTP/1.1"),
			incomplete,
		},
		{"v1 with SignatureType PRIVATEKEY", set("SignatureType", "PRIVATEKEY"), incomplete},
		{
			"v1 with a token and a permanent key",
			set("SecurityToken", marker),
			"400 InvalidSecurityToken.MismatchWithAccessKey",
		},
		{"v1 with a nonce of 129 characters", set("SignatureNonce", strings.Repeat("n", 129)), incomplete},
		{"v1 with no signature", k.raw("GET /?Action=ListSecrets&Version=2016-01-20&AccessKeyId=x HTTP/1.1"), incomplete},
		{"v1 with an empty signature", signature(func(string) string { return "" }), incomplete},
		{"v1 signed with another secret", other.v1("GET", "ListSecrets", nil, nil, nil), mismatch},
		{"v1 with a value, signed with another secret", other.v1("POST", "CreateSecret",
			map[string]string{"SecretName": "n", "VersionId": "v", "SecretData": marker}, nil, nil), mismatch},
		{
			"v1 signed for another method",
			strings.Replace(k.v1("POST", "ListSecrets", nil, nil, nil), "POST", "GET", 1),
			mismatch,
		},
		{"v1 with another Action sent", sent("Action=ListSecrets", "Action=DescribeRegions"), mismatch},
		{"v1 with another parameter sent", sent("Action=ListSecrets", "Action=ListSecrets&Extra=1"), mismatch},
		{"v1 with an empty parameter sent", sent("Action=ListSecrets", "Action=ListSecrets&Extra="), mismatch},
		{"v1 with a parameter not sent", sent("Format=JSON&", ""), mismatch},
		{"v1 with a signature that is no Base64", signature(func(string) string { return "%21%21%21" }), mismatch},
		{"v1 with a signature cut short", signature(func(s string) string {
			plain, _ := url.QueryUnescape(s) // or the cut might go through an escape
			return url.QueryEscape(plain[:10])
		}), mismatch},
		{"v1 with a signature and a line break", signature(func(s string) string { return s + "%0A" }), mismatch},
		{"v1 with a signature and a space", signature(func(s string) string { return s + "+" }), mismatch},
		{"v1 with a signature without padding", signature(func(s string) string {
			return strings.ReplaceAll(s, "%3D", "")
		}), mismatch},
		{"v1 with a signature of a megabyte less a bit", signature(func(string) string {
			return strings.Repeat("A", 900_000)
		}), mismatch},
		{"v1 with two signatures", signature(func(s string) string { return s + "&Signature=" + s }), invalid},
		{"v1 with names in lower case", k.v1("GET", "ListSecrets", nil, nil, strings.ToLower), incomplete},
		{"v1 with action and version in headers alone", k.raw("GET /?"+k.signV1("GET", map[string]string{
			"AccessKeyId": k.s.Credentials.AccessKeyID, "SignatureMethod": "HMAC-SHA1", "SignatureVersion": "1.0",
			"Timestamp": stamp(0), "SignatureNonce": k.nonce(),
		})+" HTTP/1.1", "x-acs-action: ListSecrets", "x-acs-version: 2016-01-20"), "400 InvalidVersion"},
	}
}

// headerSignature is what goes wrong in versions 3 and 4 alike.
func headerSignature(k kit, v string, scheme func(*acs)) []row {
	list := func(change func(*acs)) string {
		return k.v3("ListSecrets", nil, func(a *acs) { scheme(a); change(a) })
	}
	set := func(name, value string) string { return list(func(a *acs) { a.header[name] = value }) }
	rows := []row{}
	for _, name := range []string{
		"x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256",
	} {
		rows = append(rows,
			row{v + " without " + name, list(func(a *acs) {
				if delete(a.header, name); name == "x-acs-content-sha256" {
					a.header[name] = "-"
				}
			}), incomplete},
			row{v + " with " + name + " not signed", list(func(a *acs) {
				a.header["x-acs-content-sha256"] = emptyDigest
				for n := range a.header {
					if n != name {
						a.signed = append(a.signed, n)
					}
				}
			}), incomplete},
		)
	}
	return append(rows, []row{
		{v + " with host not signed", list(func(a *acs) {
			a.signed = []string{"x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"}
		}), incomplete},
		{v + " with an unknown action", set("x-acs-action", "NoSuchThing"), noAction},
		{v + " with an action that is not here", set("x-acs-action", "Encrypt"), notHere},
		{v + " with another version", set("x-acs-version", "2017-01-01"), "400 InvalidVersion"},
		{v + " of 16 minutes ago", list(func(a *acs) { a.at(16 * time.Minute) }), "400 InvalidTimeStamp.Expired"},
		{v + " of 16 minutes ahead", list(func(a *acs) { a.at(-16 * time.Minute) }), "400 InvalidTimeStamp.Expired"},
		{v + " with a date of other form", set("x-acs-date", "20260102T030405Z"), "400 IllegalTimestamp"},
		{
			v + " with fractions of a second",
			set("x-acs-date", strings.TrimSuffix(stamp(0), "Z")+".000Z"),
			"400 IllegalTimestamp",
		},
		{v + " with a nonce of 129 characters", set("x-acs-signature-nonce", strings.Repeat("n", 129)), incomplete},
		{v + " with a digest of another body", set("x-acs-content-sha256", strings.Repeat("0", 64)), mismatch},
		{v + " with a digest in capitals", set("x-acs-content-sha256", strings.ToUpper(emptyDigest)), mismatch},
		{v + " with UNSIGNED-PAYLOAD", set("x-acs-content-sha256", "UNSIGNED-PAYLOAD"), mismatch},
		{v + " with another body sent", list(func(a *acs) {
			a.contentType, a.body, a.sentBody = formType, "a=1", "a=2"
		}), mismatch},
		{v + " with another query sent", list(func(a *acs) { a.sentTarget = "/?PageSize=1" }), mismatch},
		{v + " with another secret", list(func(a *acs) { a.secret = sensitive.New(marker) }), mismatch},
		{v + " with an unknown key", list(func(a *acs) { a.id = "KTunknown" }), "404 InvalidAccessKeyId.NotFound"},
		{
			v + " with another Host sent",
			strings.Replace(list(func(*acs) {}), "host: "+k.s.HTTPEndpoint, "host: elsewhere.test", 1),
			mismatch,
		},
		{v + " signed for GET, sent as POST", strings.Replace(list(func(a *acs) {
			a.method = "GET"
		}), "GET /", "POST /", 1), mismatch},
		{v + " with a signature in capitals", list(func(a *acs) { a.signature = strings.ToUpper }), incomplete},
		{v + " with a signature cut short", list(func(a *acs) {
			a.signature = func(s string) string { return s[:63] }
		}), incomplete},
		{v + " with a signature too long", list(func(a *acs) {
			a.signature = func(s string) string { return s + "0" }
		}), incomplete},
		{v + " with something behind the signature", list(func(a *acs) {
			a.signature = func(s string) string { return s + ",x=y" }
		}), incomplete},
		{v + " with a signature of zeros", list(func(a *acs) {
			a.signature = func(string) string { return strings.Repeat("0", 64) }
		}), mismatch},
		{v + " with no signature", list(func(a *acs) { a.signature = func(string) string { return "" } }), incomplete},
		{v + " with a header signed twice", list(func(a *acs) { a.signed = []string{"host", "host"} }), incomplete},
		{v + " with no header signed", list(func(a *acs) { a.signed = []string{""} }), incomplete},
		{v + " with signed headers in capitals", list(func(a *acs) {
			a.signed = []string{"Host", "X-Acs-Action"}
		}), incomplete},
		{v + " with 1000 signed headers", list(func(a *acs) {
			a.signed = strings.Split(strings.Repeat("x-a;", 999)+"x-b", ";")
		}), incomplete},
		{
			v + " with a token and a permanent key",
			set("x-acs-security-token", marker),
			"400 InvalidSecurityToken.MismatchWithAccessKey",
		},
		{v + " with a token that is not signed", list(func(a *acs) {
			a.unsigned = []string{"x-acs-security-token: " + marker}
		}), incomplete},
		{v + " with another key beside the credential", set("x-acs-accesskey-id", "KTother"), incomplete},
		{v + " with an Authorization of 9 KB", list(func(a *acs) {
			a.authorization = "Authorization: " + a.scheme + " Credential=" + strings.Repeat("k", 9000) +
				",SignedHeaders=host,Signature=" + emptyDigest
		}), incomplete},
		{v + " with nothing behind the scheme", list(func(a *acs) {
			a.authorization = "Authorization: " + a.scheme
		}), incomplete},
		{v + " with its members in another order", list(func(a *acs) {
			a.authorization = "Authorization: " + a.scheme + " SignedHeaders=host,Credential=x,Signature=" + emptyDigest
		}), incomplete},
		{v + " with a space in the credential", list(func(a *acs) { a.id = "a b" }), incomplete},
	}...)
}

const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// at moves the time of the request, and of the scope if it has one.
func (a *acs) at(ago time.Duration) {
	a.header["x-acs-date"] = stamp(ago)
	if _, rest, ok := strings.Cut(a.scope, "/"); ok {
		a.scope = time.Now().UTC().Add(-ago).Format("20060102") + "/" + rest
	}
}

func version3(k kit) []row {
	scheme := func(s string) string { return k.v3("ListSecrets", nil, func(a *acs) { a.scheme = s }) }
	authorization := func(s string) string {
		return k.v3("ListSecrets", nil, func(a *acs) { a.authorization = "Authorization: " + s })
	}
	return append(headerSignature(k, "v3", func(*acs) {}), []row{
		{"v3 with SM3", scheme("ACS3-HMAC-SM3"), incomplete},
		{"v3 with RSA", scheme("ACS3-RSA-SHA256"), incomplete},
		{"v3 with a scheme in lower case", scheme("acs3-hmac-sha256"), incomplete},
		{"v3 with a scheme of the future", scheme("ACS5-HMAC-SHA256"), incomplete},
		{"v3 with a scope", k.v3("ListSecrets", nil, func(a *acs) {
			a.scope = "20260102/local/Kms/aliyun_v4_request"
		}), incomplete},
		{"basic authorization", authorization("Basic " + marker), incomplete},
		{"a bearer token", authorization("Bearer " + marker), incomplete},
		{"another cloud's signature", authorization("AWS4-HMAC-SHA256 Credential=x/20260102/us/kms/aws4_request, " +
			"SignedHeaders=host, Signature=" + emptyDigest), incomplete},
		{
			"v3 with the action in the query alone",
			k.v3("", map[string]string{"Action": "ListSecrets", "Version": kms.Version}, nil),
			incomplete,
		},
		{
			"v3 with both signatures",
			k.v3("NoSuchThing", map[string]string{"Action": "ListSecrets", "Signature": "x"}, nil),
			noAction,
		},
	}...)
}

func version4(k kit) []row {
	today := time.Now().UTC().Format("20060102")
	scope := func(s string) string {
		return k.v3("ListSecrets", nil, func(a *acs) { a.scheme, a.scope = "ACS4-HMAC-SHA256", s })
	}
	return append(headerSignature(k, "v4", func(a *acs) {
		a.scheme, a.scope = "ACS4-HMAC-SHA256", today+"/local/Kms/aliyun_v4_request"
	}), []row{
		{"v4 without a scope", scope(""), incomplete},
		{"v4 with the scope of another day", scope("20200102/local/Kms/aliyun_v4_request"), incomplete},
		{"v4 with a date of letters", scope("2026010a/local/Kms/aliyun_v4_request"), incomplete},
		{"v4 with a scope without region", scope(today + "//Kms/aliyun_v4_request"), incomplete},
		{"v4 with a scope without product", scope(today + "/local//aliyun_v4_request"), incomplete},
		{"v4 with a scope of another end", scope(today + "/local/Kms/aws4_request"), incomplete},
		{"v4 with a scope too long", scope(today + "/local/Kms/x/aliyun_v4_request"), incomplete},
	}...)
}
