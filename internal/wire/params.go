package wire

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// maxItem bounds N in Name.N. It is far above every documented limit, and keeps a hostile N from
// being an index.
const maxItem = 100_000

// Decode fills the request struct that into points to, and checks what its tags require: required
// parameters first, then formats, which is the documented order. An optional parameter that is
// present but empty counts as absent. Parameters that the struct does not have are ignored. The
// error is a *fault.Error of kind Missing or Invalid and never quotes a value.
func Decode(in sign.Params, into any) error {
	v := reflect.ValueOf(into).Elem()
	list := Params(v.Type())
	for i := range list {
		if list[i].Required && !present(in, &list[i]) {
			return fault.Required(list[i].Name)
		}
	}
	for i := range list {
		if err := decode(in, &list[i], v.Field(list[i].index)); err != nil {
			return err
		}
	}
	return nil
}

func present(in sign.Params, p *Param) bool {
	if s, ok := in.Get(p.Name); ok && s != "" {
		return true
	}
	if p.kind != kindList && p.kind != kindStructList && p.kind != kindMap {
		return false
	}
	return slices.ContainsFunc(in, func(q sign.Param) bool {
		rest, ok := strings.CutPrefix(q.Name, p.Name)
		return ok && strings.HasPrefix(rest, ".")
	})
}

func decode(in sign.Params, p *Param, v reflect.Value) error {
	switch p.kind {
	case kindList, kindStructList:
		return decodeList(in, p, v)
	case kindMap:
		return decodeMap(in, p, v)
	}
	s, ok := in.Get(p.Name)
	if p.kind == kindOptional {
		if !ok {
			return nil
		}
		given := s // its own variable, or every parameter would be moved to the heap
		v.Set(reflect.ValueOf(&given))
		return checkString(p, s)
	}
	if s == "" {
		s = p.Default
	}
	if s == "" {
		return nil
	}
	switch p.kind {
	case kindBool:
		b, err := parseBool(p, s)
		if v.Kind() == reflect.Pointer { // nil says that the parameter is absent
			given := b
			v.Set(reflect.ValueOf(&given))
		} else {
			v.SetBool(b)
		}
		return err
	case kindInt:
		n, err := parseInt(p, s)
		v.SetInt(int64(n))
		return err
	case kindValue:
		v.Set(reflect.ValueOf(sensitive.New(s)))
		return checkString(p, s)
	case kindJSON:
		return decodeJSON(p, s, v)
	default:
		v.SetString(s)
		return checkString(p, s)
	}
}

func parseBool(p *Param, s string) (bool, error) {
	switch {
	case strings.EqualFold(s, "true"):
		return true, nil
	case strings.EqualFold(s, "false"):
		return false, nil
	}
	return false, fault.Parameter(p.Name, "use true or false.")
}

func parseInt(p *Param, s string) (int, error) {
	n, err := strconv.Atoi(s)
	switch {
	case err != nil || s[0] == '+':
		return 0, fault.Parameter(p.Name, "use a whole number in decimal digits.")
	case p.HasMin && n < p.Min || p.Max > 0 && n > p.Max:
		return 0, fault.Parameter(p.Name, "%s", rangeText(p, ""))
	}
	return n, nil
}

func checkString(p *Param, s string) error {
	if p.Literal != "" && s == p.Literal || p.ARN && strings.HasPrefix(s, "acs:kms:") {
		return nil
	}
	n, unit := len(s), "bytes"
	if !p.Bytes {
		n, unit = utf8.RuneCountInString(s), "characters"
	}
	switch {
	case len(p.Enum) > 0 && !slices.Contains(p.Enum, s):
		return fault.Parameter(p.Name, "use one of %s.", strings.Join(p.Enum, ", "))
	case p.HasMin && n < p.Min || p.Max > 0 && n > p.Max:
		return fault.Parameter(p.Name, "%s", rangeText(p, unit))
	case p.Pattern == "name" && !IsName(s):
		return fault.Parameter(p.Name, "use only letters, digits and _ / + = . @ -")
	}
	return nil
}

// IsName reports whether s has only the characters of a secret name, A-Z a-z 0-9 _ / + = . @ -
// (secrets.md section 2).
func IsName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && strings.IndexByte("_/+=.@-", c) < 0 {
			return false
		}
	}
	return s != ""
}

func rangeText(p *Param, unit string) string {
	switch {
	case unit != "":
		unit = " " + unit
	case p.kind == kindList || p.kind == kindStructList:
		unit = " items"
	}
	if p.Max == 0 {
		return "use at least " + strconv.Itoa(p.Min) + unit + "."
	}
	return "use " + strconv.Itoa(p.Min) + " to " + strconv.Itoa(p.Max) + unit + "."
}

// decodeJSON reads JSON text strictly: it refuses an unknown member, and anything after the value,
// so that a caller who mistypes TagKey learns of it.
func decodeJSON(p *Param, s string, v reflect.Value) error {
	if p.Max > 0 && len(s) > p.Max && p.Bytes {
		return fault.Parameter(p.Name, "%s", rangeText(p, "bytes"))
	}
	err := unmarshalStrict(s, v.Addr().Interface())
	if err != nil && v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String {
		err = decodeWrapped(p, s, v)
	}
	if err != nil {
		return fault.Parameter(p.Name, "it is not JSON of the documented form.")
	}
	return nil
}

// decodeWrapped reads the two other forms in which clients send a list of strings: the object of
// the 2021 reference, {"VersionStage":["a"]}, and, for TagKeys, a comma-separated list.
func decodeWrapped(p *Param, s string, v reflect.Value) error {
	var list []string
	object := map[string][]string{}
	item := strings.TrimSuffix(p.Name, "s")
	switch err := unmarshalStrict(s, &object); {
	case err == nil && len(object) == 1 && object[item] != nil:
		list = object[item]
	case err != nil && p.Name == "TagKeys" && !strings.ContainsAny(s, `[]{}"`):
		list = strings.Split(s, ",")
	default:
		return fault.Parameter(p.Name, "it is not a list.")
	}
	v.Set(reflect.ValueOf(list))
	return nil
}

func unmarshalStrict(s string, into any) error {
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() || d.InputOffset() != int64(len(strings.TrimRight(s, " \t\r\n"))) {
		return fault.New(fault.Invalid, "trailing data")
	}
	return nil
}

// decodeList reads Name.1, Name.2 … or Name.1.Key, Name.1.Value …; N starts at 1, gaps are
// tolerated, order is by N.
func decodeList(in sign.Params, p *Param, v reflect.Value) error {
	items := map[int]map[string]string{}
	for _, q := range in {
		rest, ok := strings.CutPrefix(q.Name, p.Name+".")
		if !ok {
			continue
		}
		digits, member, _ := strings.Cut(rest, ".")
		n, err := strconv.Atoi(digits)
		if err != nil || n < 1 || n > maxItem || strconv.Itoa(n) != digits {
			return fault.Parameter(p.Name, "number the items from 1: %s.1, %s.2 …", p.Name, p.Name)
		}
		if items[n] == nil {
			items[n] = map[string]string{}
		}
		items[n][member] = q.Value
	}
	if len(items) < p.Min || p.Max > 0 && len(items) > p.Max {
		return fault.Parameter(p.Name, "%s", rangeText(p, ""))
	}
	for _, n := range slices.Sorted(maps.Keys(items)) {
		item := reflect.New(v.Type().Elem()).Elem()
		if err := decodeItem(p, items[n], item); err != nil {
			return err
		}
		v.Set(reflect.Append(v, item))
	}
	return nil
}

func decodeItem(p *Param, members map[string]string, item reflect.Value) error {
	if p.kind == kindList {
		s, ok := members[""]
		if !ok || s == "" {
			return fault.Parameter(p.Name, "an item is empty.")
		}
		if p.Each > 0 && utf8.RuneCountInString(s) > p.Each {
			return fault.Parameter(p.Name, "use at most %d characters for each item.", p.Each)
		}
		item.SetString(s)
		return nil
	}
	for i := range item.NumField() {
		name := item.Type().Field(i).Tag.Get("flat")
		s, ok := members[name]
		switch f := item.Field(i); {
		case f.Kind() == reflect.Pointer && ok:
			f.Set(reflect.ValueOf(&s))
		case f.Kind() == reflect.String && i == 0 && s == "":
			return fault.Parameter(p.Name, "an item has no %s.", name)
		case f.Kind() == reflect.String:
			f.SetString(s)
		}
	}
	return nil
}

// decodeMap reads a map of strings in either of its two wire forms: JSON text in the parameter
// itself, or one parameter for each member, Name.member.
func decodeMap(in sign.Params, p *Param, v reflect.Value) error {
	whole, isJSON := in.Get(p.Name)
	out := map[string]string{}
	for _, q := range in {
		if member, ok := strings.CutPrefix(q.Name, p.Name+"."); ok && member != "" {
			out[member] = q.Value
		}
	}
	switch {
	case isJSON && whole != "" && len(out) > 0:
		return fault.Parameter(p.Name, "give it once, as JSON or as single members.")
	case isJSON && whole != "":
		if err := unmarshalStrict(whole, &out); err != nil || out == nil {
			return fault.Parameter(p.Name, "use a JSON object of strings.")
		}
	case len(out) == 0:
		return nil
	}
	v.Set(reflect.ValueOf(out))
	return nil
}

// Encode turns a request struct into parameters. Fields at their zero value are left out unless
// they are required.
func Encode(request any) sign.Params {
	v := reflect.Indirect(reflect.ValueOf(request))
	var out sign.Params
	for _, p := range Params(v.Type()) {
		f := v.Field(p.index)
		if f.IsZero() && !p.Required {
			continue
		}
		out = append(out, encode(&p, f)...)
	}
	return out
}

func encode(p *Param, f reflect.Value) sign.Params {
	one := func(s string) sign.Params { return sign.Params{{Name: p.Name, Value: s}} }
	switch p.kind {
	case kindOptional:
		return one(f.Elem().String())
	case kindValue:
		return one(f.Interface().(sensitive.Value).Reveal())
	case kindBool:
		return one(strconv.FormatBool(reflect.Indirect(f).Bool()))
	case kindInt:
		return one(strconv.FormatInt(f.Int(), 10))
	case kindJSON, kindMap:
		return one(marshal(f.Interface()))
	case kindList, kindStructList:
		return encodeList(p, f)
	default:
		return one(f.String())
	}
}

func encodeList(p *Param, f reflect.Value) sign.Params {
	var out sign.Params
	for i := range f.Len() {
		name, item := p.Name+"."+strconv.Itoa(i+1), f.Index(i)
		if p.kind == kindList {
			out = append(out, sign.Param{Name: name, Value: item.String()})
			continue
		}
		for j := range item.NumField() {
			member := item.Field(j)
			if member.Kind() == reflect.Pointer {
				if member.IsNil() {
					continue
				}
				member = member.Elem()
			}
			tag := item.Type().Field(j).Tag.Get("flat")
			out = append(out, sign.Param{Name: name + "." + tag, Value: member.String()})
		}
	}
	return out
}

// marshal returns JSON without HTML escapes. It panics on a type that JSON cannot represent; no
// request has one.
func marshal(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("wire: " + err.Error())
	}
	return strings.TrimSuffix(b.String(), "\n")
}
