package fault

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Command returns a command of keyturn about a thing with a name, as it is typed in a shell: verbs
// such as "rotation configure", the name, then the flags. A name that begins with a hyphen follows
// the flags, after --, so that it is not taken for a flag. Name and flags are quoted as necessary.
func Command(verbs, name string, flags ...string) string {
	words := append([]string{"keyturn " + verbs, name}, flags...)
	if strings.HasPrefix(name, "-") {
		words = slices.Concat([]string{"keyturn " + verbs}, flags, []string{"--", name})
	}
	for i := range words[1:] {
		words[i+1] = ShellWord(words[i+1])
	}
	return strings.Join(words, " ")
}

// Capital returns a text that begins with a capital letter.
func Capital(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// ShellWord quotes a word for a shell where that is necessary: a word that is not shown as it is,
// see [IsShown], in the form $'…' of POSIX.1-2024, with the bytes that are escaped in octal. bash,
// ksh and zsh know that form; dash, which is /bin/sh on Debian, does not.
func ShellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:/@%+="
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	if !IsShown(s) {
		return "$'" + strings.ReplaceAll(escaped(s, octal), "'", `\'`) + "'"
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// octal writes the bytes of a text as a shell does between $' and '.
func octal(text string) string {
	var out strings.Builder
	for _, b := range []byte(text) {
		fmt.Fprintf(&out, `\%03o`, b)
	}
	return out.String()
}

// inText matches a command in a format or in a text with a placeholder: verbs, the place of the
// name, and flags. between is what stands before the value of a flag: with = alone, the command has
// an end in a sentence.
func inText(verbs, place, between string) *regexp.Regexp {
	return regexp.MustCompile(`(keyturn ` + verbs + `) (` + place + `)` +
		`((?: --[a-z-]+(?:` + between + `(?:'[^']*'|` + flagValue + `))?)*)`)
}

// Targeted returns a text in which each command that has TARGET for its name is about the target of
// that name, as [Named] does for NAME.
func Targeted(text, target string) string {
	if target == "" {
		return text
	}
	return forTarget.ReplaceAllStringFunc(text, func(command string) string {
		m := forTarget.FindStringSubmatch(command)
		return ordered(m[1], m[3], target, ShellWord(target))
	})
}

const flagValue = `(?:%(?:\[\d+\])?[a-z]|[A-Za-z0-9_=-])(?:[A-Za-z0-9_.,:/=-]*[A-Za-z0-9_])?`

var (
	withPlaceholder = inText(`[a-z-]+ [a-z-]+`, `NAME\b`, `=`)
	withVerb        = inText(`[a-z-]+ [a-z-]+`, `%\[\d+\]s`, `=`)
	forTarget       = inText(`target [a-z-]+`, `TARGET\b`, `[ =]`) // findings are of the form --set NAME=VALUE, too
	aVerb           = regexp.MustCompile(`%([-+# 0-9.]*)(?:\[(\d+)\])?([a-zA-Z%])`)
)

// Named returns a text in which each command that has NAME for its name is about that name, see
// [Command]. It is for texts that are written where the name is not known. Without a name it
// returns the text as it is.
func Named(text, name string) string {
	if name == "" {
		return text
	}
	return withPlaceholder.ReplaceAllStringFunc(text, func(command string) string {
		m := withPlaceholder.FindStringSubmatch(command)
		return ordered(m[1], m[3], name, ShellWord(name))
	})
}

// ordered puts the name of a command, which is written as word, to its place.
func ordered(verbs, flags, name, word string) string {
	if strings.HasPrefix(name, "-") {
		return verbs + flags + " -- " + word
	}
	return verbs + " " + word + flags
}

// withCommands returns a format and its arguments in which each name of a command, which is a %s
// behind the verbs, is written as in [Command].
func withCommands(format string, args []any) (string, []any) {
	if !strings.Contains(format, "keyturn ") {
		return format, args
	}
	format, args = numbered(format), slices.Clone(args)
	given := len(args)
	format = withVerb.ReplaceAllStringFunc(format, func(command string) string {
		m := withVerb.FindStringSubmatch(command)
		n, err := strconv.Atoi(strings.Trim(m[2], "%[]s"))
		if err != nil || n < 1 || n > given {
			return command
		}
		name, ok := args[n-1].(string)
		if !ok {
			return command
		}
		args = append(args, ShellWord(name))
		return ordered(m[1], m[3], name, "%["+strconv.Itoa(len(args))+"]s")
	})
	return format, args
}

// numbered returns a format each verb of which has the index of its argument.
func numbered(format string) string {
	next := 1
	return aVerb.ReplaceAllStringFunc(format, func(verb string) string {
		m := aVerb.FindStringSubmatch(verb)
		if m[3] == "%" {
			return verb
		}
		if n, err := strconv.Atoi(m[2]); err == nil {
			next = n
		}
		next++
		return "%" + m[1] + "[" + strconv.Itoa(next-1) + "]" + m[3]
	})
}
