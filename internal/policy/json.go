package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth is more than any policy needs: document, statements, statement, condition, operator,
// values.
const maxDepth = 8

// object keeps the members in their order. encoding/json would take the last of two members of one
// name and match names without regard to case; in a policy either may hide a statement from a
// reviewer.
type object []member

type member struct {
	name  string
	value any // string, []any, object, or another scalar that no element takes
}

// decode reads one JSON value and refuses what a second reader could understand differently.
func decode(doc string) (any, error) {
	if !utf8.ValidString(doc) {
		return nil, errors.New("the document is not UTF-8; save it as UTF-8")
	}
	var raw json.RawMessage
	if err := json.Unmarshal([]byte(doc), &raw); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("the document is not JSON: %v (byte %d)", syntax, syntax.Offset)
		}
		return nil, errors.New("the document is not JSON")
	}
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	return decodeValue(d, 0)
}

func decodeValue(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the document is nested deeper than %d levels; remove the inner ones", maxDepth)
	}
	token, err := d.Token()
	if err != nil {
		return nil, errors.New("the document is not JSON")
	}
	switch token {
	case json.Delim('{'):
		return decodeObject(d, depth)
	case json.Delim('['):
		return decodeList(d, depth)
	}
	if s, ok := token.(string); ok {
		return s, wholeText(s)
	}
	return token, nil
}

func decodeObject(d *json.Decoder, depth int) (any, error) {
	o, seen := object{}, map[string]bool{}
	for d.More() {
		token, err := d.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, errors.New("the document is not JSON")
		}
		if err := wholeText(name); err != nil {
			return nil, err
		}
		if seen[name] {
			return nil, fmt.Errorf("member %s occurs twice in one object; merge the two", quote(name))
		}
		seen[name] = true
		value, err := decodeValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		o = append(o, member{name, value})
	}
	return o, closeDelim(d)
}

func decodeList(d *json.Decoder, depth int) (any, error) {
	list := []any{}
	for d.More() {
		value, err := decodeValue(d, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	return list, closeDelim(d)
}

func closeDelim(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errors.New("the document is not JSON")
	}
	return nil
}

// wholeText refuses the character that the decoder puts in place of half a surrogate pair: the
// string that was meant cannot be known.
func wholeText(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return fmt.Errorf("string %s holds a broken character; write it again", quote(s))
	}
	return nil
}

// textList reads a string or a list of strings, which is how policies write most values.
func textList(value any, where string) ([]string, error) {
	if s, ok := value.(string); ok {
		return []string{s}, nil
	}
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("%s must be a string or a list of strings", where)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is empty; give at least one value", where)
	}
	out := make([]string, len(list))
	for i, v := range list {
		if out[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("%s must be a string or a list of strings; put entry %d in quotes", where, i)
		}
	}
	return out, nil
}

// quote makes input fit for an error: never more than 64 bytes of it, and no control characters.
func quote(s string) string {
	const limit = 64
	if len(s) <= limit {
		return fmt.Sprintf("%q", s)
	}
	end := limit
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return fmt.Sprintf("%q…", s[:end])
}
