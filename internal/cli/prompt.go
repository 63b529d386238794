package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/keyturn/keyturn/sensitive"
)

const maxValue = 30720 // bytes of a secret value

// readValue reads a value from a file, from a pipe, or from a terminal without showing it.
func (e *env) readValue(file, prompt string) (sensitive.Value, error) {
	var data []byte
	var err error
	switch f, ok := e.stdin.(*os.File); {
	case file != "":
		data, err = os.ReadFile(file)
	case ok && term.IsTerminal(int(f.Fd())):
		fmt.Fprint(e.stderr, prompt)
		data, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(e.stderr)
	default:
		data, err = io.ReadAll(io.LimitReader(bufio.NewReader(e.stdin), maxValue+3))
		data = []byte(strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"))
	}
	switch {
	case err != nil:
		return sensitive.Value{}, fmt.Errorf("read the value: %w", err)
	case len(data) == 0:
		return sensitive.Value{}, errors.New("the value is empty; give it on standard input or with --file")
	case len(data) > maxValue:
		return sensitive.Value{}, fmt.Errorf("the value is larger than %d bytes", maxValue)
	case !utf8.Valid(data):
		return sensitive.Value{}, errors.New("the value is not UTF-8 text; encode it as Base64 and add --binary")
	}
	return sensitive.New(string(data)), nil
}

// confirm asks on a terminal. Without one the answer is no: a script says --yes.
func (e *env) confirm(question string) error {
	f, ok := e.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return coded{exitUsage,
			"standard input is not a terminal, so there is no answer; add --yes to answer yes to: " + question}
	}
	fmt.Fprintf(e.stderr, "%s [y/N] ", question)
	line, err := bufio.NewReader(e.stdin).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(line), "y") {
		return coded{exitFailed, "nothing was done"}
	}
	return nil
}
