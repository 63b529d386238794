package target

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strings"
)

// Decode reads a configuration strictly: its error names a member that the kind does not have. An
// empty configuration counts as an empty object, and a string as a list of it where one is wanted.
func Decode(config json.RawMessage, into any) error {
	if len(bytes.TrimSpace(config)) == 0 {
		config = json.RawMessage("{}")
	}
	for {
		d := json.NewDecoder(bytes.NewReader(config))
		d.DisallowUnknownFields()
		err := d.Decode(into)
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) && wrong.Value == "string" && listsStrings(wrong.Type) {
			if listed, ok := withList(config, memberPath(wrong.Field)); ok {
				config = listed
				continue
			}
		}
		return decoded(d, err)
	}
}

// decoded returns the error of a configuration that d has read with err.
func decoded(d *json.Decoder, err error) error {
	if err != nil {
		var wrong *json.UnmarshalTypeError
		switch {
		case errors.As(err, &wrong):
			return fmt.Errorf("%s is of type %s; use %s", settingName(wrong.Field), wrong.Value, wanted(wrong.Type))
		case strings.HasPrefix(err.Error(), "json: unknown field "):
			return fmt.Errorf("there is no setting %s", strings.TrimPrefix(err.Error(), "json: unknown field "))
		case !errors.As(err, new(*json.SyntaxError)) && err != io.EOF && err != io.ErrUnexpectedEOF:
			return err // of a member that reads itself, such as [Endpoint]
		}
		return errors.New("the configuration is not a JSON object")
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("the configuration is not one JSON object")
	}
	return nil
}

// listsStrings reports whether a type is a list whose elements are read from strings.
func listsStrings(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && (t.Elem().Kind() == reflect.String ||
		reflect.PointerTo(t.Elem()).Implements(reflect.TypeFor[json.Unmarshaler]()))
}

// withList returns the configuration with a list of the member at a path in its place.
func withList(config json.RawMessage, path []string) (json.RawMessage, bool) {
	if len(path) == 0 {
		listed, err := json.Marshal([]json.RawMessage{config})
		return listed, err == nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(config, &members) != nil || members[path[0]] == nil {
		return nil, false
	}
	inner, ok := withList(members[path[0]], path[1:])
	if !ok {
		return nil, false
	}
	members[path[0]] = inner
	listed, err := json.Marshal(members)
	return listed, err == nil
}

// memberPath returns a path of members without the names of embedded Go types, which encoding/json
// puts into the path and a caller cannot know.
func memberPath(path string) []string {
	return slices.DeleteFunc(
		strings.Split(path, "."), func(p string) bool { return p == "" || p[0] >= 'A' && p[0] <= 'Z' },
	)
}

func settingName(path string) string {
	if parts := memberPath(path); len(parts) > 0 {
		return strings.Join(parts, ".")
	}
	return "the configuration"
}

// wanted describes a Go type in the words of JSON.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// TLS says how a connection is protected. The zero value verifies the target's certificate against
// the machine's authorities and the host name of the address.
type TLS struct {
	// CA lists in PEM the authorities to trust instead of the machine's.
	CA string `json:"ca,omitempty"`
	// ServerName is the name to verify instead of the host of the address.
	ServerName string `json:"server_name,omitempty"`
	// Off disables TLS, for a target on a fully trusted network. It excludes the other two.
	Off bool `json:"off,omitempty"`
}

// Check returns an error if settings contradict each other or are not well formed.
func (t TLS) Check() error {
	if t.Off && (t.CA != "" || t.ServerName != "") {
		return errors.New("tls: off excludes ca and server_name")
	}
	if t.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(t.CA)) {
		return errors.New("tls: ca holds no certificate in PEM")
	}
	return nil
}

// Config returns the configuration of crypto/tls for a connection to host; nil when TLS is off.
func (t TLS) Config(host string) *tls.Config {
	if t.Off {
		return nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if t.ServerName != "" {
		c.ServerName = t.ServerName
	}
	if t.CA != "" {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM([]byte(t.CA))
	}
	return c
}

// Address returns host:port for host or host:port, with the default port where there is none.
func Address(s, port string) (string, error) {
	if s == "" {
		return "", errors.New("address is required: host or host:port")
	}
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		host, p = strings.Trim(s, "[]"), port
	}
	if host == "" || p == "" || strings.ContainsAny(host, " /@?#") ||
		strings.Contains(host, ":") && net.ParseIP(host) == nil {
		return "", fmt.Errorf("address %q is not host or host:port", s)
	}
	if n, err := net.LookupPort("tcp", p); err != nil || n == 0 {
		return "", fmt.Errorf("address %q: %q is not a port", s, p)
	}
	return net.JoinHostPort(host, p), nil
}

// Servers are the addresses of a server and of further ones with the same accounts, as members of a
// kind's configuration.
type Servers struct {
	// Address is the host or host:port where accounts are changed.
	Address string `json:"address"`
	// Verify lists further addresses where a credential must work, such as replicas.
	Verify []string `json:"verify"`
}

// Addresses returns all addresses, Address first.
func (s Servers) Addresses() []string { return append([]string{s.Address}, s.Verify...) }

// Complete fills in the default port, and returns every mistake.
func (s *Servers) Complete(port string) []error {
	var errs []error
	complete := func(address *string) {
		full, err := Address(*address, port)
		*address, errs = full, append(errs, err)
	}
	complete(&s.Address)
	for i := range s.Verify {
		complete(&s.Verify[i])
	}
	return errs
}

// Endpoints are the addresses of a server with logins, as members of a kind's configuration.
type Endpoints struct {
	// Address is the host or host:port that applications use.
	Address string `json:"address"`
	// AdminAddress is where the administrator logs in; empty means Address.
	AdminAddress string `json:"admin_address,omitempty"`
	// Verify lists where a credential must work before it becomes current; none means Address.
	Verify EndpointList `json:"verify,omitempty"`
}

// Addresses returns all addresses, with duplicates.
func (e Endpoints) Addresses() []string {
	return append([]string{e.Address, e.AdminAddress}, e.Verify.Addresses()...)
}

// LoginEndpoints returns where credentials must work.
func (e Endpoints) LoginEndpoints() EndpointList { return e.Verify }

// Complete fills in default addresses and ports, and returns every mistake.
func (e *Endpoints) Complete(port string) []error {
	var errs []error
	complete := func(setting string, address *string) {
		full, err := Address(*address, port)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", setting, err))
		}
		*address = full
	}
	complete("address", &e.Address)
	if e.AdminAddress == "" {
		e.AdminAddress = e.Address
	} else {
		complete("admin_address", &e.AdminAddress)
	}
	if len(e.Verify) == 0 {
		e.Verify = EndpointList{{Address: e.Address, Role: Writer}}
		return errs
	}
	for i := range e.Verify {
		complete(fmt.Sprintf("verify[%d]", i), &e.Verify[i].Address)
	}
	if len(e.Verify.Deciding()) == 0 {
		errs = append(errs, errors.New("verify needs an endpoint that is no replica"))
	}
	return errs
}

// quoted returns the JSON spelling of a string, without the quotation marks.
func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return s
	}
	return string(b[1 : len(b)-1])
}
