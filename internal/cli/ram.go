package cli

import (
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/ram"
)

// users returns a client of the user service.
func (e *env) users() (*ram.Client, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	return ram.New(c), nil
}

// done prints an answer as JSON, or a sentence.
func (e *env) done(response any, format string, args ...any) error {
	if e.json() {
		return printResponse(e.stdout, response)
	}
	return e.report(format, args...)
}

// report prints a line whose commands are about what they name, see [fault.Message].
func (e *env) report(format string, args ...any) error {
	_, err := fmt.Fprintln(e.stdout, fault.Message(format, args...))
	return err
}

// callUsers makes one call of the user service and prints the answer, as JSON or as a sentence.
func (e *env) callUsers(call func(*ram.Client) (any, error), format string, args ...any) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	out, err := call(client)
	if err != nil {
		return err
	}
	return e.done(out, format, args...)
}

// pageSize is how many rows a list asks for at a time.
const pageSize = 1000

// everyPage reads a list to its end. read takes in the page at a marker, and returns the marker of
// the next and whether there is one.
func everyPage(read func(marker string) (next string, more bool, err error)) error {
	for marker, more := "", true; more; {
		var err error
		if marker, more, err = read(marker); err != nil {
			return err
		}
	}
	return nil
}

// facts adds rows of a name and what is to be said of it, where there is something.
func (t *table) facts(rows ...[2]string) {
	for _, row := range rows {
		if row[1] != "" {
			t.row(row[0], row[1])
		}
	}
}

// policyType finds the type of a policy: the account's own if it has one of that name, else one
// that comes with the service.
func policyType(e *env, client *ram.Client, name string) (string, error) {
	_, err := client.GetPolicy(e.ctx, &ram.PolicyRequest{PolicyName: name, PolicyType: ram.TypeCustom})
	switch {
	case err == nil:
		return ram.TypeCustom, nil
	case kms.CodeOf(err) == ram.CodePolicyNotExist:
		return ram.TypeSystem, nil
	}
	return "", err
}

// policyOf attaches a policy or detaches it, and prints the result: done is "attached to user app".
func (e *env) policyOf(
	policy, done string, change func(client *ram.Client, kind string) (*ram.EmptyResponse, error),
) error {
	client, err := e.users()
	if err != nil {
		return err
	}
	kind, err := policyType(e, client, policy)
	if err != nil {
		return err
	}
	out, err := change(client, kind)
	if err != nil {
		return err
	}
	return e.done(out, "%s policy %s is %s.", kind, policy, done)
}

// names joins names for display.
func names[T any](list []T, name func(T) string) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = name(v)
	}
	return strings.Join(out, ", ")
}
