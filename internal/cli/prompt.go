package cli

import (
	"bufio"
	"bytes"
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

// source says where a value comes from: file, if it is not empty, or else a pipe or a terminal,
// which shows prompt. flag is the flag that names file; empty for none.
type source struct{ file, flag, prompt string }

// readValue reads a value from a file, from a pipe, or from a terminal without showing it. A file
// is taken as it is, and so is a pipe unless it has one line alone: its line end is not part of the
// value, which a note on standard error says. raw takes a pipe as it is, too.
func (e *env) readValue(from source, raw bool) (sensitive.Value, error) {
	var data []byte
	var err error
	switch f, ok := e.stdin.(*os.File); {
	case from.file != "":
		data, err = os.ReadFile(from.file)
	case ok && term.IsTerminal(int(f.Fd())):
		fmt.Fprint(e.stderr, from.prompt)
		data, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(e.stderr)
	default:
		data, err = io.ReadAll(io.LimitReader(bufio.NewReader(e.stdin), maxValue+3))
		if line, ok := oneLine(data); ok && !raw {
			data = line
			fmt.Fprintln(e.stderr, "Note: the newline at the end was removed.")
		}
	}
	switch {
	case err != nil:
		return sensitive.Value{}, fmt.Errorf("read the value: %w", err)
	case len(data) == 0:
		text := "the value is empty; give it on standard input"
		if from.flag != "" {
			text += " or with " + from.flag
		}
		return sensitive.Value{}, errors.New(text)
	case len(data) > maxValue:
		return sensitive.Value{}, fmt.Errorf("the value is larger than %d bytes", maxValue)
	case !utf8.Valid(data):
		return sensitive.Value{}, errors.New("the value is not UTF-8 text; encode it as Base64 and add --binary")
	}
	return sensitive.New(string(data)), nil
}

// isPiped reports whether standard input is a file or a pipe.
func (e *env) isPiped() bool {
	f, ok := e.stdin.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}

// readLine reads a credential of one line, such as a password, and returns it without its line end,
// also from a file: editors end each line.
func (e *env) readLine(from source) (sensitive.Value, error) {
	value, err := e.readValue(from, true)
	if err != nil {
		return value, err
	}
	line, _ := oneLine([]byte(value.Reveal()))
	switch {
	case strings.ContainsAny(string(line), "\r\n"):
		return sensitive.Value{}, errors.New("the value has several lines; it must be one")
	case len(line) == 0:
		return sensitive.Value{}, errors.New("the value is an empty line")
	}
	return sensitive.New(string(line)), nil
}

// oneLine returns data without its line end. ok is false for data that has none, or has another
// line end before it; those are returned as they are.
func oneLine(data []byte) (line []byte, ok bool) {
	line, ok = bytes.CutSuffix(data, []byte("\n"))
	if !ok || bytes.ContainsRune(line, '\n') {
		return data, false
	}
	return bytes.TrimSuffix(line, []byte("\r")), true
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
