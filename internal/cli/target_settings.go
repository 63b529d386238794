package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// targetSettings are the flags that make a configuration. Which settings a kind has, the server
// knows.
type targetSettings struct {
	Address string   `help:"Setting address: host or host:port of the system." placeholder:"HOST[:PORT]"`
	Config  string   `help:"File with the whole configuration, a JSON object; - for standard input." placeholder:"FILE"`
	Set     []string `help:"Setting of the kind, such as tls.server_name=…" placeholder:"KEY=VALUE" sep:"none"`
	TLSCA   string   `name:"tls-ca" help:"Certificates to trust, PEM." placeholder:"FILE" type:"existingfile"`
	TLSOff  bool     `name:"tls-off" help:"Setting tls.off: connect without TLS, on a network that you trust entirely."`
}

// given reports whether any flag changes the configuration.
func (s targetSettings) given() bool {
	return s.Address != "" || s.Config != "" || len(s.Set) > 0 || s.TLSCA != "" || s.TLSOff
}

// build makes the configuration: the file, or what there was, and then each flag.
func (s targetSettings) build(e *env, present string) (string, error) {
	if s.Config != "" {
		var err error
		if present, err = readConfig(e, s.Config); err != nil {
			return "", err
		}
	}
	members := map[string]any{}
	if present != "" {
		d := json.NewDecoder(strings.NewReader(present))
		d.UseNumber()
		if err := d.Decode(&members); err != nil || members == nil || d.More() {
			return "", errors.New("the configuration is not a JSON object")
		}
	}
	if err := s.assign(members); err != nil {
		return "", err
	}
	out, err := marshal(members, "")
	return strings.TrimSuffix(out, "\n"), err
}

// assign sets the members that flags name.
func (s targetSettings) assign(members map[string]any) error {
	if s.Address != "" {
		members["address"] = s.Address
	}
	if s.TLSCA != "" {
		pem, err := os.ReadFile(s.TLSCA)
		if err != nil {
			return err
		}
		if err := assign(members, "tls.ca", string(pem)); err != nil {
			return err
		}
	}
	if s.TLSOff {
		if err := assign(members, "tls.off", true); err != nil {
			return err
		}
	}
	for _, setting := range s.Set {
		key, value, ok := strings.Cut(setting, "=")
		if !ok || key == "" {
			return coded{exitUsage, fmt.Sprintf("--set must be KEY=VALUE, not %q", setting)}
		}
		if err := assign(members, key, settingValue(value)); err != nil {
			return err
		}
	}
	return nil
}

func readConfig(e *env, path string) (string, error) {
	if path == "-" {
		return readLimited(e.stdin)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return readLimited(f)
}

// settingValue takes JSON as what it is, so that numbers, booleans and lists can be given, and all
// else as text.
func settingValue(s string) any {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return s
	}
	if _, err := d.Token(); err != io.EOF {
		return s
	}
	return v
}

// assign sets a member by its path, a.b.c, and makes the objects on the way.
func assign(members map[string]any, path string, value any) error {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		members[name] = value
		return nil
	}
	inner, ok := members[name].(map[string]any)
	if _, there := members[name]; there && !ok {
		return coded{exitUsage, fmt.Sprintf("the setting %s is not an object, so it has no %s", name, rest)}
	}
	if inner == nil {
		inner = map[string]any{}
	}
	members[name] = inner
	return assign(inner, rest, value)
}

func marshal(v any, indent string) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	err := enc.Encode(v)
	return b.String(), err
}

// remove takes a member away by its path, and the objects that it leaves empty.
func remove(members map[string]any, path string) bool {
	name, rest, deeper := strings.Cut(path, ".")
	value, there := members[name]
	if !there || !deeper {
		delete(members, name)
		return there
	}
	inner, ok := value.(map[string]any)
	if !ok || !remove(inner, rest) {
		return false
	}
	if len(inner) == 0 {
		delete(members, name)
	}
	return true
}
