// Package wire turns the request and response structs of packages kms and ram into what crosses the
// wire and back: parameters, JSON and XML.
//
// The `kms` tags of a struct are the only description of its parameters. A tag is the wire name
// followed by options:
//
//	required     absent or empty is Missing
//	min=N max=N  characters of a string, value of an integer, items of a list
//	each=N       characters of each item of a list of strings, at most
//	bytes        max counts bytes of UTF-8 instead of characters
//	enum=a|b     the allowed values, case sensitive
//	default=V    the value assumed when absent
//	pattern=P    "name": letters, digits and _ / + = . @ -
//	arn          an ARN is allowed; the rules apply to the name in it, which the gate extracts
//	literal=L    this one value is allowed besides
//	resource=K   the parameter names a resource of the operation: secret, target, key, user,
//	             group, policy, or user-or-self, which is the caller when absent
//	agent=A      what an agent does with the parameter, since it speaks to the server for all its
//	             callers: drop or refuse
//	json         the parameter is JSON text; or, in a response, the field is such text
//	flat         a flattened field: Name.1, Name.2 or Name.1.Key, Name.1.Value; of a map Name.member
//	list=Item    in a response: the list stands inside an object, as the member Item
//	omitempty    in a response: left out when empty; without it the member is always there
package wire

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/sensitive"
)

// Param describes one parameter of an operation.
type Param struct {
	Name     string
	Type     string // string, integer, boolean, json or list
	Required bool
	Min, Max int // 0 means no bound
	Each     int // characters of an item at most; 0 means no bound
	HasMin   bool
	Bytes    bool
	Enum     []string
	Default  string
	Pattern  string
	Literal  string
	ARN      bool
	Secret   bool   // a sensitive.Value
	Resource string // the kind of resource that it names; empty for none
	Agent    string // AgentDrops or AgentRefuses; empty when an agent passes it on

	index int
	kind  kind
}

// Field describes one member of a response.
type Field struct {
	Name      string
	List      string // the item's name, for a list that stands inside an object
	OmitEmpty bool
	Type      reflect.Type
	index     int
	kind      kind
}

// Values of Agent: how an agent treats a parameter with which a consumer describes itself.
const (
	AgentDrops   = "drop"
	AgentRefuses = "refuse"
)

// resourceKinds are the values of the option resource.
var resourceKinds = []string{"secret", "target", "key", "user", "user-or-self", "group", "policy"}

// ResourceText returns the resource in the words of the public reference, such as
// secret/${SecretName}.
func (p *Param) ResourceText() string {
	return strings.TrimSuffix(p.Resource, "-or-self") + "/${" + p.Name + "}"
}

// Text returns a pointer to the parameter in a request. request is a pointer to the struct that p
// belongs to. Text panics when the parameter is not a string.
func (p *Param) Text(request any) *string {
	return reflect.ValueOf(request).Elem().Field(p.index).Addr().Interface().(*string)
}

type kind uint8

const (
	kindString kind = iota
	kindOptional
	kindValue
	kindBool
	kindInt
	kindTime
	kindJSON
	kindList
	kindStructList
	kindMap
	kindStruct
)

var (
	valueType = reflect.TypeFor[sensitive.Value]()
	timeType  = reflect.TypeFor[time.Time]()
	params    sync.Map // reflect.Type -> []Param
	fields    sync.Map // reflect.Type -> []Field
)

// Params describes the parameters of a request struct, in the order of its fields. It panics when a
// tag is malformed, so every test that uses the type fails.
func Params(t reflect.Type) []Param {
	if p, ok := params.Load(t); ok {
		return p.([]Param)
	}
	var list []Param
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("kms")
		if !ok {
			continue
		}
		list = append(list, parseParam(t, f, tag, i))
	}
	params.Store(t, list)
	return list
}

func parseParam(t reflect.Type, f reflect.StructField, tag string, index int) Param {
	parts := strings.Split(tag, ",")
	p := Param{Name: parts[0], index: index}
	var asJSON, flat bool
	for _, opt := range parts[1:] {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "required":
			p.Required = true
		case "min":
			p.Min, p.HasMin = number(t, f, value), true
		case "max":
			p.Max = number(t, f, value)
		case "each":
			p.Each = number(t, f, value)
		case "bytes":
			p.Bytes = true
		case "enum":
			p.Enum = strings.Split(value, "|")
		case "default":
			p.Default = value
		case "pattern":
			p.Pattern = value
		case "arn":
			p.ARN = true
		case "literal":
			p.Literal = value
		case "resource":
			p.Resource = oneOf(t, f, value, resourceKinds...)
		case "agent":
			p.Agent = oneOf(t, f, value, AgentDrops, AgentRefuses)
		case "json":
			asJSON = true
		case "flat":
			flat = true
		default:
			panic(fmt.Sprintf("wire: %s.%s: unknown option %q", t, f.Name, opt))
		}
	}
	p.setKind(t, f, asJSON, flat)
	return p
}

// setKind completes a parameter by the type of its field.
func (p *Param) setKind(t reflect.Type, f reflect.StructField, asJSON, flat bool) {
	p.kind, p.Type = paramKind(t, f, asJSON, flat)
	p.Secret = p.kind == kindValue
	if p.Resource != "" && (p.kind != kindString || p.Type != "string") {
		panic(fmt.Sprintf("wire: %s.%s: only a string names a resource", t, f.Name))
	}
}

func oneOf(t reflect.Type, f reflect.StructField, value string, list ...string) string {
	if !slices.Contains(list, value) {
		panic(fmt.Sprintf("wire: %s.%s: %q is none of %s", t, f.Name, value, strings.Join(list, ", ")))
	}
	return value
}

func paramKind(t reflect.Type, f reflect.StructField, asJSON, flat bool) (kind, string) {
	switch {
	case asJSON && flat && f.Type.Kind() == reflect.Map:
		return kindMap, "json"
	case asJSON && f.Type.Kind() == reflect.String:
		return kindString, "json"
	case asJSON:
		return kindJSON, "json"
	case flat && f.Type.Elem().Kind() == reflect.String:
		return kindList, "list"
	case flat:
		return kindStructList, "list"
	case f.Type == valueType:
		return kindValue, "string"
	case f.Type.Kind() == reflect.String:
		return kindString, "string"
	case f.Type.Kind() == reflect.Bool, f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Bool:
		return kindBool, "boolean"
	case f.Type.Kind() == reflect.Int:
		return kindInt, "integer"
	case f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.String:
		return kindOptional, "string"
	}
	panic(fmt.Sprintf("wire: %s.%s: no parameter has type %s", t, f.Name, f.Type))
}

func number(t reflect.Type, f reflect.StructField, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(fmt.Sprintf("wire: %s.%s: %v", t, f.Name, err))
	}
	return n
}

// Fields describes the members of a response struct, in order. It panics when a tag is malformed.
func Fields(t reflect.Type) []Field {
	if f, ok := fields.Load(t); ok {
		return f.([]Field)
	}
	var list []Field
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("kms")
		if !ok {
			continue
		}
		list = append(list, parseField(t, f, tag, i))
	}
	fields.Store(t, list)
	return list
}

func parseField(t reflect.Type, f reflect.StructField, tag string, index int) Field {
	parts := strings.Split(tag, ",")
	out := Field{Name: parts[0], Type: f.Type, index: index}
	for _, opt := range parts[1:] {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "omitempty":
			out.OmitEmpty = true
		case "list":
			out.List = value
		case "json": // JSON text in a string: nothing to do, it names what the reader finds
		default:
			panic(fmt.Sprintf("wire: %s.%s: unknown option %q", t, f.Name, opt))
		}
	}
	out.kind = fieldKind(t, f, out.List)
	return out
}

func fieldKind(t reflect.Type, f reflect.StructField, list string) kind {
	ft := f.Type
	if ft.Kind() == reflect.Pointer && ft.Elem().Kind() == reflect.Slice {
		ft = ft.Elem()
	}
	switch {
	case ft == valueType:
		return kindValue
	case ft == timeType:
		return kindTime
	case ft.Kind() == reflect.String:
		return kindString
	case ft.Kind() == reflect.Int:
		return kindInt
	case ft.Kind() == reflect.Bool:
		return kindBool
	case ft.Kind() == reflect.Slice && list != "" && ft.Elem().Kind() == reflect.String:
		return kindList
	case ft.Kind() == reflect.Slice && list != "" && ft.Elem().Kind() == reflect.Struct:
		return kindStructList
	case ft.Kind() == reflect.Struct:
		return kindStruct
	}
	panic(fmt.Sprintf("wire: %s.%s: no member has type %s", t, f.Name, ft))
}
