package secrecy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// needle is a text that must not be found, in the forms in which it could be written.
type needle struct {
	what  string
	forms map[string][]byte
}

// newNeedle makes the forms of a text: as it is, in Base64 at each of three offsets, in
// hexadecimal digits, and escaped for a URL, for JSON, for HTML and for Go.
func newNeedle(what, text string) needle {
	quoted, _ := json.Marshal(text) // of a string it cannot fail
	var plain bytes.Buffer
	e := json.NewEncoder(&plain)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // nor can this
	n := needle{what, map[string][]byte{
		"plain":             []byte(text),
		"hex":               []byte(hex.EncodeToString([]byte(text))),
		"HEX":               []byte(strings.ToUpper(hex.EncodeToString([]byte(text)))),
		"query":             []byte(url.QueryEscape(text)),
		"path":              []byte(url.PathEscape(text)),
		"HTML":              []byte(html.EscapeString(text)),
		"JSON":              bytes.Trim(quoted, `"`),
		"JSON without HTML": bytes.Trim(bytes.TrimSpace(plain.Bytes()), `"`),
		"Go":                []byte(strings.Trim(fmt.Sprintf("%q", text), `"`)),
	}}
	for offset := range 3 {
		// The first and the last digits depend on what stands beside the text.
		first, last := (offset*8+5)/6, (offset+len(text))*8/6
		padded := append(make([]byte, offset), text...)
		n.forms[fmt.Sprint("Base64 at ", offset)] = []byte(base64.StdEncoding.EncodeToString(padded)[first:last])
		n.forms[fmt.Sprint("Base64 for URLs at ", offset)] = []byte(base64.URLEncoding.EncodeToString(padded)[first:last])
	}
	return n
}

// found is a needle in one of its forms.
type found struct {
	what, form string
	text       []byte
}

// index finds many texts in one pass: by the first eight bytes of each form.
type index struct {
	starts map[uint64][]found
	first  [1 << 16]bool // of the first two bytes
}

const least = 8 // bytes of a form

func newIndex(needles []needle) *index {
	x := &index{starts: map[uint64][]found{}}
	for _, n := range needles {
		for form, text := range n.forms {
			if len(text) < least {
				panic("a form is too short to be searched for: " + n.what)
			}
			start := binary.BigEndian.Uint64(text)
			x.starts[start] = append(x.starts[start], found{n.what, form, text})
			x.first[start>>48] = true
		}
	}
	return x
}

// in returns what data holds, by what it is; of each, one form and what stands before it.
func (x *index) in(data []byte) map[string]string {
	all := map[string]string{}
	for i := 0; i+least <= len(data); i++ {
		if !x.first[binary.BigEndian.Uint16(data[i:])] {
			continue
		}
		for _, f := range x.starts[binary.BigEndian.Uint64(data[i:])] {
			if bytes.HasPrefix(data[i:], f.text) {
				all[f.what] = fmt.Sprintf("%s, behind %q", f.form, data[max(0, i-60):i])
			}
		}
	}
	return all
}

// haystack is all that was written, by where.
type haystack map[string][]byte

// walk reads every file under a directory, and checks the modes of files and directories.
func (h haystack) walk(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
		if d.IsDir() {
			return nil
		}
		name, err := filepath.Rel(filepath.Dir(dir), path)
		if err == nil {
			h[name], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// search looks for every needle everywhere but where it may be; there, it must be.
func (h haystack) search(t *testing.T, needles []needle, allowed map[string][]string) (bytes int) {
	t.Helper()
	x := newIndex(needles)
	missing := maps.Clone(allowed)
	for where, data := range h {
		bytes += len(data)
		for what, form := range x.in(data) {
			if slices.Contains(allowed[what], where) {
				missing[what] = slices.DeleteFunc(slices.Clone(missing[what]), func(place string) bool { return place == where })
			} else {
				t.Errorf("%s is in %s: %s", what, where, form)
			}
		}
	}
	for what, places := range missing {
		if len(places) > 0 {
			t.Errorf("%s is not in %q, where it must be: the search finds too little", what, places)
		}
	}
	return bytes
}

// TestNeedle verifies that the search finds a text in each form, wherever it stands.
func TestNeedle(t *testing.T) {
	t.Parallel()
	const text = `a "value" & <more>/+é%`
	x := newIndex([]needle{newNeedle("text", text), newNeedle("other", "another text")})
	for before := range 4 {
		for after := range 4 {
			all := strings.Repeat("x", before) + text + strings.Repeat("y", after)
			quoted, err := json.Marshal(all)
			if err != nil {
				t.Fatal(err)
			}
			for form, data := range map[string]string{
				"plain":           all,
				"hex":             fmt.Sprintf("%x", all),
				"HEX":             fmt.Sprintf("%X", all),
				"JSON":            string(quoted),
				"query":           url.QueryEscape(all),
				"path":            url.PathEscape(all),
				"Base64":          base64.StdEncoding.EncodeToString([]byte(all)),
				"Base64 for URLs": base64.RawURLEncoding.EncodeToString([]byte(all)),
				"Go":              fmt.Sprintf("%q", all),
			} {
				if got := x.in([]byte(data)); len(got) != 1 || got["text"] == "" {
					t.Errorf("%s, %d before and %d after: %v", form, before, after, got)
				}
			}
		}
	}
	if got := x.in([]byte(`a "value" & <more>/+é`)); len(got) > 0 {
		t.Errorf("a text that is shorter is found: %v", got)
	}
}
