package cli

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/internal/audit"
	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/root"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/settings"
)

// clientVariables are the variables that are not settings of the server.
var clientVariables = []string{
	command.ProfileVariable, "KEYTURN_ENDPOINT",
	"KEYTURN_ACCESS_KEY_ID", "KEYTURN_ACCESS_KEY_SECRET", "KEYTURN_SECURITY_TOKEN",
	"KEYTURN_CA_FILE", "KEYTURN_INSECURE_HTTP", "KEYTURN_CONFIG_DIR",
	"KEYTURN_ROOT_KEY", "KEYTURN_ROOT_KEY" + root.Additional,
}

// foreignVariable reports whether a variable is not a setting of the server: one of a client, or
// one that Kubernetes sets for a service of the name keyturn.
func foreignVariable(variable string) bool {
	kubernetes := strings.TrimPrefix(variable, settings.Prefix)
	return slices.Contains(clientVariables, variable) ||
		strings.HasPrefix(kubernetes, "SERVICE_") ||
		kubernetes == "PORT" ||
		strings.HasPrefix(kubernetes, "PORT_")
}

// loadSettings reads the settings of a server from flags, environment and file, and makes its
// configuration. It reports every mistake at once.
func loadSettings(e *env, flags map[string][]string) (*server.Settings, error) {
	set := server.NewSettings()
	err := set.Load(flags, os.Environ(), foreignVariable)
	set.Logger = command.NewLogger(e.stderr, set.LogLevel, set.LogFormat == "json")
	set.Config.Settings = slices.Concat(audit.Details{{Name: "version", Value: command.Version}}, set.InForce())
	commands, commandErr := commandLines(set)
	set.Kinds = TargetKinds(commands)
	if err := errors.Join(err, commandErr, set.Resolve()); err != nil {
		return nil, coded{exitUsage, err.Error()}
	}
	return set, nil
}

// settingFlags are flags that derive from rows of the table of settings: kong takes its flags from
// the fields of a struct, which newSettingFlags makes.
type settingFlags struct {
	kong.Plugins
	names []string
}

// newSettingFlags returns a flag for each setting. Help begins with before.
func newSettingFlags(before string, list []*settings.Setting) settingFlags {
	var fields []reflect.StructField
	var names []string
	for i, s := range list {
		help := s.Usage()
		if before != "" {
			help = before + lowerFirst(help)
		}
		tag := fmt.Sprintf("name:%q help:%q placeholder:%q", s.Name, help, s.Placeholder)
		kind := reflect.TypeFor[texts]()
		switch {
		case s.Negatable:
			kind, tag = reflect.TypeFor[switchTexts](), tag+` negatable:""`
		case s.IsSwitch():
			kind = reflect.TypeFor[switchTexts]()
		case s.List && !s.Lines:
			kind = reflect.TypeFor[listTexts]()
		}
		if s.Hidden {
			tag += ` hidden:""`
		}
		fields = append(fields, reflect.StructField{Name: fmt.Sprint("F", i), Type: kind, Tag: reflect.StructTag(tag)})
		names = append(names, s.Name)
		if s.Former != "" { // the table refuses it, and names the present one
			fields = append(fields, reflect.StructField{
				Name: fmt.Sprint("Former", i),
				Type: reflect.TypeFor[texts](),
				Tag:  reflect.StructTag(fmt.Sprintf(`name:%q hidden:""`, s.Former)),
			})
			names = append(names, s.Former)
		}
	}
	return settingFlags{kong.Plugins{reflect.New(reflect.StructOf(fields)).Interface()}, names}
}

// lowerFirst lets a sentence follow a colon. It leaves an abbreviation, such as YAML, as it is.
func lowerFirst(s string) string {
	if len(s) > 1 && 'a' <= s[1] && s[1] <= 'z' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// given returns the texts of the flags that were given, by name.
func (f settingFlags) given() map[string][]string {
	all := map[string][]string{}
	values := reflect.ValueOf(f.Plugins[0]).Elem()
	for i, name := range f.names {
		if v := values.Field(i).Interface().(interface{ all() []string }); v.all() != nil {
			all[name] = v.all()
		}
	}
	return all
}

// texts are what was given for a flag, in order.
type texts struct{ given []string }

func (t texts) all() []string { return t.given }

// Decode takes the next value of the flag.
func (t *texts) Decode(c *kong.DecodeContext) error {
	var text string
	if err := c.Scan.PopValueInto("setting", &text); err != nil {
		return err
	}
	t.given = append(t.given, text)
	return nil
}

// listTexts are the texts of a flag whose items are separated by commas.
type listTexts struct{ texts }

// Decode takes the next values of the flag.
func (t *listTexts) Decode(c *kong.DecodeContext) error {
	var text texts
	if err := text.Decode(c); err != nil {
		return err
	}
	t.given = append(t.given, kong.SplitEscaped(text.given[0], ',')...)
	return nil
}

// switchTexts are the texts of a flag that needs no value.
type switchTexts struct{ texts }

// IsBool makes the value optional for kong.
func (switchTexts) IsBool() bool { return true }

// Decode takes the value of the flag if it has one.
func (t *switchTexts) Decode(c *kong.DecodeContext) error {
	text := "true"
	if c.Scan.Peek().Type == kong.FlagValueToken {
		text = fmt.Sprint(c.Scan.Pop().Value)
	}
	t.given = append(t.given, text)
	return nil
}
