package api

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

// ConfigureFlags returns the flag of keyturn rotation configure, without --, for each setting of
// ConfigureRotation, by its parameter.
func ConfigureFlags() map[string]string {
	flags := map[string]string{paramTarget: flagTarget, paramInterval: flagInterval}
	for _, r := range rotationSettings {
		flags[r.param] = r.flag
	}
	return flags
}

const (
	paramTarget   = "TargetName"
	paramInterval = "RotationInterval"

	flagTarget   = "target"
	flagInterval = "interval"
)

// namedFlag is a flag of keyturn rotation configure in a call.
type namedFlag struct {
	flag string // with -- and its value, as a shell takes it
	list bool   // it may be repeated
}

// name returns a flag without its value.
func (f namedFlag) name() string {
	name, _, _ := strings.Cut(f.flag, "=")
	return name
}

// namedFlags returns the flags with which the command makes a call.
func namedFlags(named secret.RotationSettings, in *kms.ConfigureRotationRequest) (flags []namedFlag) {
	add := func(flag, value string, list bool) {
		if value != "" {
			flags = append(flags, namedFlag{"--" + flag + "=" + fault.ShellWord(value), list})
		}
	}
	add(flagTarget, in.TargetName, false)
	add(flagInterval, in.RotationInterval, false)
	for _, r := range rotationSettings {
		if r.list == nil {
			add(r.flag, r.text(&named), false)
			continue
		}
		for _, value := range r.list(&named) {
			add(r.flag, value, true)
		}
	}
	if in.EnableAutomaticRotation != nil && !*in.EnableAutomaticRotation {
		flags = append(flags, namedFlag{flag: "--manual"})
	}
	if in.Replace {
		flags = append(flags, namedFlag{flag: "--replace"})
	}
	for _, r := range rotationSettings {
		if slices.Contains(in.Reset, r.param) {
			add("reset", r.flag, true)
		}
	}
	return flags
}

// completed returns a refusal in which each command that configures the secret also names what the
// refused call has named: nothing of that is stored, and the secret has no target, or another one.
func (c *Call) completed(err error, s secret.Secret, in *kms.ConfigureRotationRequest) error {
	var refusal *fault.Error
	if s.Managed() || in.TargetName == s.TargetName() || in.TargetName == "" || !errors.As(err, &refusal) {
		return err
	}
	named, wrong := c.namedSettings(in)
	if wrong != nil { // err says so
		return err
	}
	const verbs = "rotation configure"
	const configure = "keyturn " + verbs + " "
	parts := strings.Split(refusal.Msg, configure)
	for i, part := range parts[1:] {
		parts[i+1] = withFlags(part, s.Name, namedFlags(named, in))
	}
	out := *refusal
	out.Msg = strings.Join(parts, configure)
	return &out
}

var (
	givenFlag  = regexp.MustCompile(` --[a-z-]+(?:=(?:'[^']*'|[^\s'])+)?`)
	givenFlags = regexp.MustCompile(`^(?:` + givenFlag.String() + `)*`)
)

// withFlags returns the arguments of a command, and the text behind it, with the flags that it does
// not have itself. It leaves a command about another secret as it is. See [fault.Command] for the
// order of the arguments.
func withFlags(text, name string, flags []namedFlag) string {
	word := fault.ShellWord(name)
	own, isAbout := "", false
	if strings.HasPrefix(name, "-") {
		own = givenFlags.FindString(" " + text)
		isAbout = startsWithName((" " + text)[len(own):], " -- "+word)
	} else if isAbout = startsWithName(text, word); isAbout {
		own = givenFlags.FindString(text[len(word):])
	}
	if !isAbout {
		return text
	}
	var given []namedFlag
	for _, flag := range givenFlag.FindAllString(own, -1) {
		given = append(given, namedFlag{flag: strings.TrimRight(flag[1:], ".,;:)")})
	}
	var missing string
	for _, f := range flags {
		isGiven := func(g namedFlag) bool { return g.flag == f.flag || !f.list && g.name() == f.name() }
		if !slices.ContainsFunc(given, isGiven) {
			missing += " " + f.flag
		}
	}
	switch {
	case missing == "":
		return text
	case strings.HasPrefix(name, "-"):
		return missing[1:] + " " + text
	}
	return word + missing + text[len(word):]
}

// nameGoesOn matches the part behind a name of a longer name.
var nameGoesOn = regexp.MustCompile(`^[.]*[A-Za-z0-9_/+=@-]`)

// startsWithName reports whether a text begins with words of which the last is a name, and not with
// a longer name.
func startsWithName(text, words string) bool {
	rest, ok := strings.CutPrefix(text, words)
	return ok && !nameGoesOn.MatchString(rest)
}
