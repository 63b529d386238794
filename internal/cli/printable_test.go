package cli

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
)

// hostile is a text that sets the title of a terminal, clears it, turns the direction of a line,
// and begins a line of its own.
const hostile = "\x1b]0;title\x07\x1b[2J\u202eabc\u009b1m\U000e0041\nkeyturn: enter your password:"

// TestHostileServer verifies that no text of a server reaches a terminal other than as a text:
// answers, errors, tables and JSON.
func TestHostileServer(t *testing.T) {
	text, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	refuses := false
	finding := `{"Code":` + string(text) + `,"Verdict":"note","Text":` + string(text) + `,"Fix":` + string(text) + `}`
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if refuses {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"Code":"Forbidden","Message":` + string(text) + `}`))
			return
		}
		_, _ = w.Write([]byte(`{"SecretName":` + string(text) + `,"State":` + string(text) + `,"Verdict":"safe",` +
			`"Reason":` + string(text) + `,"Findings":{"Finding":[` + finding + `]}}`))
	}))
	defer server.Close()
	for name, value := range map[string]string{
		"KEYTURN_ENDPOINT":          server.URL,
		"KEYTURN_ACCESS_KEY_ID":     "id",
		"KEYTURN_ACCESS_KEY_SECRET": "secret",
		"HOME":                      t.TempDir(),
	} {
		t.Setenv(name, value)
	}
	for _, line := range []string{
		"rotation check db", "rotation check db -o json", "rotation status db", "secret list",
		"kms DescribeRotation --SecretName db",
	} {
		var out bytes.Buffer
		refuses = line == "secret list"
		Run(t.Context(), strings.Fields(line), strings.NewReader(""), &out, &out)
		if !strings.Contains(out.String(), `\u202e`) {
			t.Errorf("%s does not show the text: %s", line, out.String())
		}
		for _, r := range out.String() {
			if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
				t.Errorf("%s prints %U", line, r)
			}
		}
	}
}

// TestPrintable verifies that characters arrive whole, however a text is divided.
func TestPrintable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	w := &printable{w: &out}
	for _, b := range []byte("aä漢😀\x1b\u00a0\xffz\n") {
		if n, err := w.Write([]byte{b}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got, want := out.String(), "aä漢😀\\u001b\u00a0\ufffdz\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
