package agent

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode/utf8"

	"github.com/keyturn/keyturn/sensitive"
)

// Value is one version of a secret, as templates and environments need it.
type Value struct {
	Name, VersionID string
	Data            sensitive.Value
	// Binary reports that Data is the Base64 of bytes.
	Binary bool
}

// maxRendered bounds a rendered file.
const maxRendered = 4 << 20

// parsedTemplate is a template and the secrets that it names.
type parsedTemplate struct {
	template *template.Template
	text     string
	secrets  []string
}

// templateError is what a function of a template says; it holds names and no value.
type templateError string

func (e templateError) Error() string { return string(e) }

func refuse(format string, args ...any) error { return templateError(fmt.Sprintf(format, args...)) }

// parseTemplate parses a template. Names of secrets must be literals, so that it is known
// beforehand which there are.
func parseTemplate(name, text string) (*parsedTemplate, error) {
	t, err := template.New("template").Option("missingkey=error").Funcs(functions(nil)).Parse(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: template:"))
	}
	s := &parsedTemplate{template: t, text: text}
	var errs []error
	for _, part := range t.Templates() {
		if part.Tree != nil && part.Root != nil {
			walk(part.Root, func(c *parse.CommandNode) {
				if err := s.named(c); err != nil {
					location, _ := part.ErrorContext(c)
					errs = append(errs, fmt.Errorf("%s: %w", strings.TrimPrefix(location, "template:"), err))
				}
			})
		}
	}
	slices.Sort(s.secrets)
	s.secrets = slices.Compact(s.secrets)
	return s, errors.Join(errs...)
}

// named notes the secret that a command reads.
func (s *parsedTemplate) named(c *parse.CommandNode) error {
	f, ok := c.Args[0].(*parse.IdentifierNode)
	if !ok || !slices.Contains([]string{"secret", "member", "version"}, f.Ident) {
		return nil
	}
	if len(c.Args) < 2 {
		return fmt.Errorf("%s needs the name of a secret, in quotes", f.Ident)
	}
	name, ok := c.Args[1].(*parse.StringNode)
	if !ok {
		return fmt.Errorf("the name that %s gets must be written there in quotes", f.Ident)
	}
	var m mistakes
	if checkSecretName(fmt.Sprintf("%q", name.Text), name.Text, &m); m.err() != nil {
		return m.err()
	}
	s.secrets = append(s.secrets, name.Text)
	return nil
}

// walk visits every command below a node.
func walk(n parse.Node, visit func(*parse.CommandNode)) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, child := range n.Nodes {
				walk(child, visit)
			}
		}
	case *parse.ActionNode:
		walk(n.Pipe, visit)
	case *parse.TemplateNode:
		walk(n.Pipe, visit)
	case *parse.PipeNode:
		if n != nil {
			for _, c := range n.Cmds {
				walk(c, visit)
			}
		}
	case *parse.CommandNode:
		visit(n)
		for _, arg := range n.Args {
			walk(arg, visit)
		}
	case *parse.ChainNode:
		walk(n.Node, visit)
	case *parse.IfNode:
		walkBranch(&n.BranchNode, visit)
	case *parse.RangeNode:
		walkBranch(&n.BranchNode, visit)
	case *parse.WithNode:
		walkBranch(&n.BranchNode, visit)
	}
}

func walkBranch(n *parse.BranchNode, visit func(*parse.CommandNode)) {
	walk(n.Pipe, visit)
	walk(n.List, visit)
	walk(n.ElseList, visit)
}

// render renders the template from a complete set of values. The error holds the place and no
// value.
func (s *parsedTemplate) render(values map[string]Value) ([]byte, error) {
	t, err := s.template.Clone()
	if err != nil {
		return nil, err
	}
	var out bounded
	if err := t.Funcs(functions(values)).Execute(&out, nil); err != nil {
		return nil, placed(err)
	}
	return out.b, nil
}

// bounded is a writer that takes so much and no more.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > maxRendered {
		return 0, refuse("the file would be larger than %d bytes", maxRendered)
	}
	w.b = append(w.b, p...)
	return len(p), nil
}

var _ io.Writer = (*bounded)(nil)

var placePattern = regexp.MustCompile(`^template: template:(\d+(?::\d+)?): `)

// placed keeps of an error of text/template the place, and what a function of ours has said: the
// rest may quote a value.
func placed(err error) error {
	place := ""
	if found := placePattern.FindStringSubmatch(err.Error()); found != nil {
		place = "line " + found[1] + ": "
	}
	var ours templateError
	if errors.As(err, &ours) {
		return errors.New(place + ours.Error())
	}
	return errors.New(place + "a function or a member there does not suit what it is given")
}

// functions are what a template may use beside the language's own.
func functions(values map[string]Value) template.FuncMap {
	find := func(name string) (Value, error) {
		v, ok := values[name]
		if !ok {
			return v, refuse("there is no value of secret %q", name)
		}
		return v, nil
	}
	return template.FuncMap{
		"secret": func(name string) (string, error) {
			v, err := find(name)
			return v.Data.Reveal(), err
		},
		"member": func(name, member string) (string, error) {
			v, err := find(name)
			if err != nil {
				return "", err
			}
			return memberOf(v, member)
		},
		"version": func(name string) (string, error) {
			v, err := find(name)
			return v.VersionID, err
		},
		"json":       quoteJSON,
		"yaml":       quoteJSON, // every JSON text is YAML
		"base64":     func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
		"unbase64":   unbase64,
		"shell":      quoteShell,
		"env":        quoteEnv,
		"properties": quoteProperties,
	}
}

// members reads a value that is a JSON object: strings as they are, numbers and booleans in their
// spelling, objects and lists as compact JSON. A member that is null is left out. The error does
// not quote the value.
func members(v Value) (map[string]string, bool) {
	var raw map[string]json.RawMessage
	if v.Binary || json.Unmarshal([]byte(v.Data.Reveal()), &raw) != nil || raw == nil {
		return nil, false
	}
	out := make(map[string]string, len(raw))
	for name, value := range raw {
		if text, ok := memberText(value); ok {
			out[name] = text
		}
	}
	return out, true
}

func memberText(raw json.RawMessage) (string, bool) {
	switch raw[0] {
	case 'n':
		return "", false
	case '"':
		var s string
		return s, json.Unmarshal(raw, &s) == nil
	case '{', '[':
		var v any
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.UseNumber()
		if d.Decode(&v) != nil {
			return "", false
		}
		text, err := appendJSON(v)
		return text, err == nil
	}
	return string(raw), true
}

// appendJSON writes compact JSON without the escapes that are for HTML.
func appendJSON(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSuffix(b.String(), "\n"), err
}

func memberOf(v Value, member string) (string, error) {
	all, ok := members(v)
	if !ok {
		return "", refuse("the value of secret %q is no JSON object, so it has no member %q", v.Name, member)
	}
	text, ok := all[member]
	if !ok {
		return "", refuse("secret %q has no member %q; it has %s", v.Name, member,
			strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	return text, nil
}

func unbase64(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "", refuse("what unbase64 is given is not base64")
	}
	return string(b), nil
}

func quoteJSON(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", refuse("the value is not UTF-8 text; use base64")
	}
	return appendJSON(s)
}

// quoteShell writes one word of a POSIX shell.
func quoteShell(s string) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", refuse("a value with a NUL byte cannot be a word of a shell; use base64")
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'", nil
}

// quoteEnv writes a value for a file of NAME=value lines that systemd (EnvironmentFile=), a shell
// and the usual dotenv libraries read alike. They do not agree about line breaks, so there are
// none.
func quoteEnv(s string) (string, error) {
	if strings.ContainsAny(s, "\x00\r\n") || !utf8.ValidString(s) {
		return "", refuse("a value with a line break, a NUL byte or bytes that are not UTF-8 does not fit in a file of " +
			"NAME=value lines; use base64")
	}
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:@%+,-") == "" {
		return s, nil
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s) + `"`, nil
}

// quoteProperties writes a value of a .properties file of Java, in ASCII.
func quoteProperties(s string) (string, error) {
	if !utf8.ValidString(s) {
		return "", refuse("the value is not UTF-8 text; use base64")
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\f':
			b.WriteString(`\f`)
		case r == ' ' && i == 0:
			b.WriteString(`\ `)
		case r < ' ' || r > '~' && r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			b.WriteRune(r)
		}
	}
	return b.String(), nil
}
