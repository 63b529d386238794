// Package settings reads a program's settings from flags, variables of the environment and a YAML
// file, all from one table.
//
// A row of the table says everything about a setting: its name, where its value goes, its kind with
// its bounds, its default and its help. Flags, variables, keys of the file, error messages, the
// record of the settings in force and the page of documentation derive from it. The package knows
// no setting itself.
package settings

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Setting is a row of the table. Make one with [Of].
type Setting struct {
	// Name is the flag, the key of the file and, with [Variable], the variable of the environment.
	Name string
	// Placeholder stands for the value in help; empty for a switch, which has no value.
	Placeholder string
	// Help is one sentence, without the default and the bounds.
	Help string
	// Default is shown in help and documents.
	Default string
	// Bounds describe the permitted values; empty if every value of the kind is.
	Bounds string
	// Negatable switches have a flag --no-NAME.
	Negatable bool
	// Hidden settings are accepted and not documented.
	Hidden bool
	// Former is a name that the setting once had. [Table.Load] refuses it and names the present one.
	Former string
	// List settings may be given several times; without Lines, commas separate items of a flag.
	List, Lines bool

	form    form
	of      string // the setting without which this one has no effect
	secret  bool
	program bool
	noFile  bool
	literal bool
	parse   func(texts []string) (apply func(), err error)
	preset  func()
	fill    func()
	check   func() error
	texts   []string // what was given; nil for nothing
}

// Of returns a row: the value of the setting goes to *into. The default is def, unless *into has
// another value before or the operator gives one.
func Of[T any](name string, into *T, k Kind[T], def T, help string) *Setting {
	return &Setting{
		Name:        name,
		Placeholder: k.placeholder,
		Help:        help,
		Default:     k.show(def),
		Bounds:      k.bounds,
		Negatable:   k.form == formSwitch && k.show(def) == "true",
		List:        k.form == formList,
		Lines:       k.lines,
		form:        k.form,
		preset:      func() { *into = def },
		fill: func() {
			if k.unset(*into) {
				*into = def
			}
		},
		check: func() error {
			if k.negative != nil && k.negative(*into) {
				return fmt.Errorf("%s is %v, and must not be negative", name, *into)
			}
			return nil
		},
		parse: func(texts []string) (func(), error) {
			v, err := k.parse(texts)
			return func() { *into = v }, err
		},
	}
}

// Shown replaces the default in help and documents, where it is not a constant.
func (s *Setting) Shown(text string) *Setting { s.Default = text; return s }

// For declares that the setting has an effect only with another one. [Table.Load] refuses it
// without that one.
func (s *Setting) For(name string) *Setting { s.of = name; return s }

// Secret declares that the value is a URL that may hold a token or a password. Records show its
// scheme and host alone, and error messages do not repeat it.
func (s *Setting) Secret() *Setting { s.secret = true; return s }

// Program declares a command line: [Table.InForce] leaves its arguments out, which may hold a
// token.
func (s *Setting) Program() *Setting { s.program = true; return s }

// NotInFile excludes the setting from the file.
func (s *Setting) NotInFile() *Setting { s.noFile = true; return s }

// Literal declares that the zero value is a value like any other. The default is then set by
// [Table.Load], and [Table.Fill] leaves the field alone.
func (s *Setting) Literal() *Setting { s.literal = true; return s }

// Formerly declares a name that the setting once had.
func (s *Setting) Formerly(name string) *Setting { s.Former = name; return s }

// Undocumented hides the setting from help and documents.
func (s *Setting) Undocumented() *Setting { s.Hidden = true; return s }

// IsSwitch reports whether the flag of the setting has no value.
func (s *Setting) IsSwitch() bool { return s.form == formSwitch }

// Usage is the help of the flag, with default and bounds.
func (s *Setting) Usage() string {
	text := strings.TrimSuffix(s.Help, ".") + " (" + s.Default
	if s.Bounds != "" {
		text += "; " + s.Bounds
	}
	return text + ")."
}

// Table is the settings of a program.
type Table []*Setting

// Find returns the setting of a name, nil if there is none.
func (t Table) Find(name string) *Setting {
	if i := slices.IndexFunc(t, func(s *Setting) bool { return s.Name == name }); i >= 0 {
		return t[i]
	}
	return nil
}

// Fill sets every field that has its zero value to the default of its setting.
func (t Table) Fill() {
	for _, s := range t {
		if !s.literal {
			s.fill()
		}
	}
}

// Check reports every field that holds a negative number or duration. [Table.Load] sets none, but a
// program may have written to the fields itself.
func (t Table) Check() error {
	var errs []error
	for _, s := range t {
		errs = append(errs, s.check())
	}
	return errors.Join(errs...)
}

// InForce returns the settings that were given, sorted by name. A value is the text that was given;
// of a URL that may hold a secret it is scheme and host, of a command line the program.
func (t Table) InForce() [][2]string {
	var list [][2]string
	for _, s := range t {
		if s.texts == nil {
			continue
		}
		texts := slices.Clone(s.texts)
		for i, text := range texts {
			switch {
			case s.secret:
				texts[i] = hostOf(text)
			case s.program:
				texts[i], _, _ = strings.Cut(strings.TrimSpace(text), " ")
			}
		}
		list = append(list, [2]string{s.Name, strings.Join(texts, ",")})
	}
	slices.SortFunc(list, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return list
}

// hostOf returns the part of a URL, or of host:port, that holds no secret.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		if host, port, err := net.SplitHostPort(text); err == nil && !strings.ContainsAny(text, "@/?#") {
			return net.JoinHostPort(host, port)
		}
		return "?"
	}
	return u.Scheme + "://" + u.Host
}

// Rows returns the table of the documentation, one line of Markdown for each setting.
func (t Table) Rows() []string {
	rows := []string{"| setting | default | bounds | meaning |", "|---|---|---|---|"}
	for _, s := range t {
		if !s.Hidden {
			cell := strings.NewReplacer("|", `\|`)
			rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s |",
				s.Name, cell.Replace(s.Default), cell.Replace(s.Bounds), cell.Replace(s.Help)))
		}
	}
	return rows
}
