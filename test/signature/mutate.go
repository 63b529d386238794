package signature

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/sign"
)

// odd are what is inserted, and put around values: white space of every kind, separators,
// escapes, control characters.
var odd = []string{
	" ", "\t", "\r\n ", "\r\n\t", "\r\n \r\n ", "\n", "\r", "\v", "\f", "\x00", "\u00a0", "\u0085", "\u1680",
	"\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff", "\u200b", "\xa0", "\x85", "%", "%20",
	"%00", "%C2%A0", "+", "&", "=", ";", ",", "/", "?", "#", ":", "\"", "a", "0", "~",
}

// authorizations are headers that another scheme would have, or that are not quite one of ours.
var authorizations = []string{
	"",
	"ACS",
	"ACS ",
	"ACS3",
	"ACS3-",
	"ACS4-",
	"acs3-hmac-sha256 Credential=testid",
	"ACS3-HMAC-SM3 Credential=testid,SignedHeaders=host,Signature=00",
	"ACS3-RSA-SHA256 Credential=testid,SignedHeaders=host,Signature=00",
	"ACS testid:x",
	"Bearer x",
	"Basic dGVzdGlkOng=",
	"ACS1-HMAC-SHA1 x",
	"ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=,Signature=" + strings.Repeat("0", 64),
}

// bodies are added to requests, and put in the place of theirs.
var bodies = []field{
	{jsonType, `{"SecretName":"other"}`},
	{jsonType, `{"Extra":"x"}`},
	{jsonType, `{}`},
	{"application/json", `{"VersionStage":"ACSPrevious","Action":"DeleteSecret"}`},
	{formType, "SecretName=other"},
	{formType, "Extra=x"},
	{formType, "Action=DeleteSecret"},
	{formType, "&"},
	{"", "Extra=x"},
	{"text/plain", "Extra=x"},
	{"APPLICATION/JSON", `{"Extra":"x"}`},
	{"application/json;charset=utf-16", `{"Extra":"x"}`},
	{"multipart/form-data; boundary=x", "--x--\r\n"},
}

// extra are headers that are added.
var extra = []field{
	{"x-acs-action", "DeleteSecret"},
	{"x-acs-version", "2015-05-01"},
	{"x-acs-security-token", "x"},
	{"x-acs-accesskey-id", "other"},
	{"x-acs-date", "2020-01-01T00:00:00Z"},
	{"x-acs-signature-nonce", "other"},
	{"x-acs-content-sha256", strings.Repeat("0", 64)},
	{"host", "other"},
	{"content-type", "application/json"},
	{"content-type", formType},
	{"x-http-method-override", "DELETE"},
	{"x-forwarded-host", "other"},
	{"accept", "application/xml"},
	{"content-encoding", "gzip"},
	{"transfer-encoding", "chunked"},
	{"content-length", "0"},
	{"connection", "close, x-acs-date"},
	{"cookie", "a=b"},
	{"expect", "100-continue"},
	{"trailer", "x-acs-action"},
	{"x_acs_action", "DeleteSecret"},
	{"x-acs-bearer-token", "x"},
}

// pick returns one of a list.
func pick[T any](r *rand.Rand, l []T) T { return l[r.IntN(len(l))] }

// change is one kind of mutation of a message; it may do nothing where there is nothing to change.
type change struct {
	name string
	do   func(r *rand.Rand, m *message)
}

var changes = []change{
	{"method", func(r *rand.Rand, m *message) {
		m.method = pick(r, []string{"GET", "POST", "PUT", "HEAD", "get", "Post", "DELETE", "OPTIONS"})
	}},
	{"byte of the target", func(r *rand.Rand, m *message) { m.target = mutateBytes(r, m.target) }},
	{"byte of the body", func(r *rand.Rand, m *message) { m.body = mutateBytes(r, m.body) }},
	{"path", func(r *rand.Rand, m *message) {
		m.target = pick(r, []string{
			"/", "//", "", "/.", "/%2F", "/x", "*", "http://other", "http://other/", "http:", "/;a",
		}) + strings.TrimPrefix(m.target, "/")
	}},
	{"byte of a header", func(r *rand.Rand, m *message) {
		h := &m.headers[r.IntN(len(m.headers))]
		h.value = mutateBytes(r, h.value)
	}},
	{"around a header", func(r *rand.Rand, m *message) {
		h := &m.headers[r.IntN(len(m.headers))]
		if r.IntN(2) == 0 {
			h.value += pick(r, odd)
		} else {
			h.value = pick(r, odd) + h.value
		}
	}},
	{"around the nonce", func(r *rand.Rand, m *message) {
		for i := range m.headers {
			if strings.EqualFold(m.headers[i].name, "x-acs-signature-nonce") {
				if r.IntN(3) == 0 {
					m.headers[i].value = pick(r, odd) + m.headers[i].value
				} else {
					m.headers[i].value += pick(r, odd)
				}
			}
		}
	}},
	{"name of a header", func(r *rand.Rand, m *message) {
		h := &m.headers[r.IntN(len(m.headers))]
		h.name = pick(r, []string{
			strings.ToUpper(h.name), strings.ToLower(h.name), h.name + " ", " " + h.name,
			h.name + "\u00a0", strings.ReplaceAll(h.name, "-", "_"), h.name + "x",
		})
	}},
	{"header removed", func(r *rand.Rand, m *message) {
		i := r.IntN(len(m.headers))
		m.headers = slices.Delete(m.headers, i, i+1)
	}},
	{"header twice", func(r *rand.Rand, m *message) {
		h := pick(r, m.headers)
		h.value = pick(r, []string{h.value, "", "other", h.value + "x", strings.ToUpper(h.value)})
		m.headers = slices.Insert(m.headers, r.IntN(len(m.headers)+1), h)
	}},
	{"header added", func(r *rand.Rand, m *message) {
		m.headers = slices.Insert(m.headers, r.IntN(len(m.headers)+1), pick(r, extra))
	}},
	{"headers in another order", func(r *rand.Rand, m *message) {
		r.Shuffle(len(m.headers), func(i, j int) { m.headers[i], m.headers[j] = m.headers[j], m.headers[i] })
	}},
	{"another authorization", func(r *rand.Rand, m *message) { m.set(r, "authorization", pick(r, authorizations)) }},
	{"authorization and body", func(r *rand.Rand, m *message) {
		m.set(r, "authorization", pick(r, authorizations))
		b := pick(r, bodies)
		m.set(r, "content-type", b.name)
		m.body = b.value
	}},
	{"body", func(r *rand.Rand, m *message) {
		b := pick(r, bodies)
		m.body = b.value
		if r.IntN(4) > 0 {
			m.set(r, "content-type", b.name)
		}
	}},
	{"content type", func(r *rand.Rand, m *message) { m.set(r, "content-type", pick(r, bodies).name) }},
	{"encoding of the query", func(r *rand.Rand, m *message) {
		path, query, _ := strings.Cut(m.target, "?")
		m.target = path + "?" + recode(r, query)
	}},
	{"encoding of the form", func(r *rand.Rand, m *message) { m.body = recode(r, m.body) }},
	{"parameters", func(r *rand.Rand, m *message) {
		path, query, _ := strings.Cut(m.target, "?")
		m.target = path + "?" + shuffleParams(r, query)
	}},
	{"parameters of the form", func(r *rand.Rand, m *message) { m.body = shuffleParams(r, m.body) }},
	{"parameter moved to the body", func(r *rand.Rand, m *message) {
		path, query, _ := strings.Cut(m.target, "?")
		pairs := strings.Split(query, "&")
		i := r.IntN(len(pairs))
		if m.body != "" {
			m.body += "&"
		}
		m.body += pairs[i]
		m.set(r, "content-type", formType)
		m.target = path + "?" + strings.Join(slices.Delete(pairs, i, i+1), "&")
	}},
	{"parameter moved to the query", func(r *rand.Rand, m *message) {
		pairs := strings.Split(m.body, "&")
		i := r.IntN(len(pairs))
		m.target += map[bool]string{true: "&", false: "?"}[strings.Contains(m.target, "?")] + pairs[i]
		m.body = strings.Join(slices.Delete(pairs, i, i+1), "&")
	}},
}

// set sets a header, or adds it somewhere.
func (m *message) set(r *rand.Rand, name, value string) {
	for i := range m.headers {
		if strings.EqualFold(m.headers[i].name, name) {
			m.headers[i].value = value
			return
		}
	}
	m.headers = slices.Insert(m.headers, r.IntN(len(m.headers)+1), field{name, value})
}

// mutateBytes inserts, deletes, replaces, repeats, or changes the case of something.
func mutateBytes(r *rand.Rand, s string) string {
	i := r.IntN(len(s) + 1)
	if i == len(s) {
		return s + pick(r, odd)
	}
	switch r.IntN(6) {
	case 0:
		return s[:i] + s[i+1:]
	case 1:
		return s[:i] + pick(r, odd) + s[i:]
	case 2:
		return s[:i] + pick(r, odd) + s[i+1:]
	case 3:
		return s[:i] + string(s[i]^0x20) + s[i+1:]
	case 4:
		j := i + r.IntN(len(s)-i)
		return s[:j] + s[i:j] + s[j:]
	}
	return s[:i] + string([]byte{byte(r.IntN(256))}) + s[i+1:]
}

// recode writes pairs in another percent-encoding, mostly one of the same meaning.
func recode(r *rand.Rand, pairs string) string {
	var b strings.Builder
	way := r.IntN(6)
	for i := 0; i < len(pairs); i++ {
		c := pairs[i]
		switch {
		case c == '&' || c == '=':
			b.WriteByte(c)
		case c == '%' && i+2 < len(pairs) && way == 0:
			b.WriteString(strings.ToLower(pairs[i : i+3]))
			i += 2
		case c == '%' && way == 1:
			b.WriteString("%25")
		case c == '+' && way == 2:
			b.WriteString("%20")
		case c != '%' && c != '+' && way == 3:
			fmt.Fprintf(&b, "%%%02X", c)
		case c == '%' && i+2 < len(pairs) && way == 4:
			if raw, err := url.PathUnescape(pairs[i : i+3]); err == nil {
				b.WriteString(raw)
			}
			i += 2
		case c == '+' && way == 5:
			b.WriteString("%2B")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// shuffleParams orders, repeats, removes, renames or adds a pair.
func shuffleParams(r *rand.Rand, s string) string {
	pairs := strings.Split(s, "&")
	i := r.IntN(len(pairs))
	switch r.IntN(7) {
	case 0:
		r.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	case 1:
		pairs = slices.Insert(pairs, r.IntN(len(pairs)), pairs[i])
	case 2:
		pairs = slices.Delete(pairs, i, i+1)
	case 3:
		name, value, _ := strings.Cut(pairs[i], "=")
		pairs[i] = pick(r, []string{
			strings.ToLower(name), name + ".1", name + "%00", sign.PercentEncode(name + " "),
		}) + "=" + value
	case 4:
		pairs = slices.Insert(pairs, i, pick(r, []string{
			"Extra=x", "", "=", "SecretName", "DryRun=true", "Action=DeleteSecret", "Signature=x", "Format=XML",
		}))
	case 5:
		pairs[i] += "="
	case 6:
		pairs[i] = strings.TrimSuffix(pairs[i], "=")
	}
	return strings.Join(pairs, "&")
}
