package cli

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/keyturn/keyturn/kms"
)

// aParameter is a word that may be the name of a parameter, in the quotes of the documented text or
// without quotes. Other quoted text is a value, and stays.
var aParameter = regexp.MustCompile(`parameter "[A-Za-z.]+"|"[^"]*"|\b[A-Z][A-Za-z]*(?:\.N)?`)

// inFlags returns an error of the API in the words of a command: the name of a parameter becomes
// the flag that sets it. Other errors stay as they are.
func inFlags(err error, command *kong.Node) error {
	var service *kms.Error
	if command == nil || !errors.As(err, &service) {
		return err
	}
	shown := *service
	shown.Message = aParameter.ReplaceAllStringFunc(service.Message, func(word string) string {
		name, heading := strings.CutPrefix(word, `parameter "`)
		name = strings.TrimSuffix(strings.TrimSuffix(name, `"`), ".N")
		flag := flagOf(command, name)
		compound := strings.IndexFunc(name[min(1, len(name)):], unicode.IsUpper) >= 0
		switch {
		case flag == nil, !compound && !flag.Set: // Account may be the ordinary word
			return word
		case heading:
			return "parameter --" + flag.Name
		}
		return "--" + flag.Name
	})
	return &shown
}

// flagOf returns the flag of a command that sets a parameter of the API; nil if it has none.
func flagOf(command *kong.Node, parameter string) *kong.Flag {
	name := hyphenated(parameter)
	short := strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(name, "-name"), "-period"), "rotation-")
	file := map[string]string{"SecretData": kms.RepairAdopt}[parameter] // of rotation repair: the file with it
	for _, f := range command.Flags {
		if parameter != "" && slices.Contains([]string{name, short, file}, f.Name) {
			return f
		}
	}
	return nil
}

// hyphenated returns a name such as GraceLimit as grace-limit.
func hyphenated(name string) string {
	var b strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
