package command

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

var (
	noValue    = regexp.MustCompile(`^(\S+): expected .* value but got "EOL" \(<EOL>\)$`)
	noArgument = regexp.MustCompile(`^expected "(<.*)"$`)
	noCommand  = regexp.MustCompile(`^expected one of .*$`)
	notKnown   = regexp.MustCompile(`^unexpected argument (\S+?)(,|$)`)
)

// Usage returns the text of an error of the parser in the words of this program, and names the
// command or group whose help says more.
func Usage(program string, err error) string {
	text := err.Error()
	if strings.Contains(text, "--help") {
		return text
	}
	text = strings.Replace(text, `must be one of "",`, "must be one of ", 1) // "" stands for a flag that is not given
	text = noValue.ReplaceAllString(text, "$1 needs a value")
	text = noArgument.ReplaceAllString(text, "$1 is missing")
	text = noCommand.ReplaceAllString(text, "a command is missing")
	if at := found(err); at != nil {
		program = at.FullPath()
		if len(at.Children) > 0 {
			unknown := notKnown.MatchString(text)
			text = notKnown.ReplaceAllString(text, `there is no command "$1"$2`)
			if unknown && !strings.Contains(text, "did you mean") {
				text += "; there are " + commandsOf(at)
			}
		}
	}
	return text + "; see " + program + " --help"
}

// commandsOf returns the names of the commands of a group.
func commandsOf(group *kong.Node) string {
	var names []string
	for _, child := range group.Children {
		if !child.Hidden {
			names = append(names, child.Name)
		}
	}
	return strings.Join(names, ", ")
}

// found returns the last command or group that the parser has recognized; nil if there is none.
func found(err error) *kong.Node {
	var p *kong.ParseError
	if !errors.As(err, &p) || p.Context == nil {
		return nil
	}
	for _, step := range slices.Backward(p.Context.Path) {
		if node := step.Node(); node != nil {
			return node
		}
	}
	return nil
}
