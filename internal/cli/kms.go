package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/operation"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sign"
)

// kmsCommand calls any operation. It has the flags of the official CLI: names of parameters
// begin with a capital letter, options of the command with a small one.
type kmsCommand struct {
	Args []string `arg:"" optional:"" passthrough:"" help:"OPERATION --Parameter value …"`
}

const kmsUsage = `Usage: keyturn kms OPERATION --Parameter value …

A documented "aliyun kms" command works after replacing the first word.

  --Parameter-FILE PATH   take the value from a file
  --profile NAME, -p      profile to use instead of KEYTURN_PROFILE or the current one
  --endpoint HOST:PORT    another endpoint than the profile's
  --header NAME=VALUE     Accept=application/xml asks for XML
  --force                 send parameters that the operation does not have; they are ignored
  --region, --version, --method, --secure
                          accepted as the official CLI does; they change nothing here

Operations:
`

// kmsOptions lists the options of the official CLI, and whether a value follows.
var kmsOptions = map[string]bool{
	"profile": true, "endpoint": true, "region": true, "version": true, "method": true, "header": true,
	"force": false, "secure": false,
}

type kmsCall struct {
	operation string
	params    sign.Params
	options   map[string]string
}

func (c *kmsCommand) Run(e *env) error {
	if len(c.Args) == 0 || slices.Contains([]string{"--help", "-h", "help"}, c.Args[0]) {
		fmt.Fprint(e.stdout, kmsUsage)
		for _, op := range protocol.Operations() {
			fmt.Fprintf(e.stdout, "  %s\n", op.Name)
		}
		return nil
	}
	call, err := parseKms(c.Args)
	if err != nil {
		return err
	}
	op, err := call.check()
	if err != nil {
		return err
	}
	client, err := call.client()
	if err != nil {
		return err
	}
	accept := ""
	if strings.EqualFold(call.options["header"], "Accept=application/xml") {
		accept = "application/xml"
	}
	body, err := client.Do(e.ctx, kms.Call{
		Action:     op.Name,
		Version:    op.Version,
		Params:     call.params,
		Accept:     accept,
		Idempotent: op.Retryable,
	})
	if err != nil {
		return kmsError(e, err)
	}
	if accept != "" {
		_, err := fmt.Fprintln(e.stdout, string(body))
		return err
	}
	return printJSON(e.stdout, body)
}

// client returns a client for the profile and the endpoint that the options name.
func (call *kmsCall) client() (*kms.Client, error) {
	p, err := command.Resolve(call.options["profile"])
	if err != nil {
		return nil, err
	}
	if endpoint := call.options["endpoint"]; endpoint != "" {
		p.Endpoint = endpoint
	}
	return p.Client(userAgent)
}

// parseKms parses the arguments. A parameter may be given as --Name value or --Name=value.
func parseKms(args []string) (kmsCall, error) {
	call := kmsCall{operation: args[0], options: map[string]string{}}
	if strings.HasPrefix(call.operation, "-") {
		return call, coded{exitUsage, "the operation comes first: keyturn kms OPERATION --Parameter value …"}
	}
	for rest := args[1:]; len(rest) > 0; {
		name, value, joined := strings.Cut(rest[0], "=")
		rest = rest[1:]
		if name == "-p" {
			name = "--profile"
		}
		name, ok := strings.CutPrefix(name, "--")
		if !ok || name == "" {
			return call, coded{exitUsage, fmt.Sprintf("%q is not --Parameter value; quote a value with spaces", name)}
		}
		takes, isOption := kmsOptions[name]
		if !isOption && (name[0] < 'A' || name[0] > 'Z') {
			return call, coded{exitUsage,
				fmt.Sprintf("unknown option --%s; parameters of an operation begin with a capital letter", name)}
		}
		if !joined && (takes || !isOption) {
			if len(rest) == 0 {
				return call, coded{exitUsage, fmt.Sprintf("--%s has no value", name)}
			}
			value, rest = rest[0], rest[1:]
		}
		if isOption {
			call.options[name] = value
			continue
		}
		if err := call.add(name, value); err != nil {
			return call, err
		}
	}
	return call, nil
}

func (call *kmsCall) add(name, value string) error {
	if plain, ok := strings.CutSuffix(name, "-FILE"); ok {
		data, err := os.ReadFile(value)
		if err != nil {
			return coded{exitFailed, fmt.Sprintf("--%s: %s", name, err)}
		}
		name, value = plain, string(data)
	}
	if _, ok := call.params.Get(name); ok {
		return coded{exitUsage, fmt.Sprintf("--%s is given twice", name)}
	}
	call.params = append(call.params, sign.Param{Name: name, Value: value})
	return nil
}

// check finds the operation before anything is sent: an unknown operation exits with 2, a missing
// parameter with 3.
func (call *kmsCall) check() (*operation.Op, error) {
	op := protocol.Named(call.operation)
	if op == nil {
		return nil, coded{exitUsage,
			fmt.Sprintf("'%s' is not an operation of kms; %s", call.operation, suggest(call.operation))}
	}
	if err := call.checkNames(op); err != nil {
		return nil, err
	}
	var missing []string
	for _, p := range op.Params() {
		if p.Required && !slices.ContainsFunc(call.params, func(q sign.Param) bool {
			return q.Name == p.Name || strings.HasPrefix(q.Name, p.Name+".")
		}) {
			missing = append(missing, "--"+p.Name)
		}
	}
	if len(missing) > 0 {
		return nil, coded{exitMissing, fmt.Sprintf("%s needs %s", call.operation, strings.Join(missing, ", "))}
	}
	return op, nil
}

// checkNames refuses a parameter that the operation does not have: the server ignores it, as the
// cloud does. --force sends it all the same, as with the official CLI. Every documented call of
// the cloud may name its region.
func (call *kmsCall) checkNames(op *operation.Op) error {
	if _, force := call.options["force"]; force {
		return nil
	}
	for _, q := range call.params {
		name, _, _ := strings.Cut(q.Name, ".")
		has := slices.ContainsFunc(op.Params(), func(p wire.Param) bool { return p.Name == name })
		if has || name == "RegionId" {
			continue
		}
		var names []string
		for _, p := range op.Params() {
			if strings.EqualFold(p.Name, name) {
				return coded{exitUsage, fmt.Sprintf("%s has no parameter --%s; did you mean --%s?", op.Name, name, p.Name)}
			}
			names = append(names, "--"+p.Name)
		}
		return coded{exitUsage, fmt.Sprintf("%s has no parameter --%s; it has %s. --force sends it all the same",
			op.Name, name, cmp.Or(strings.Join(names, ", "), "none"))}
	}
	return nil
}

// suggest returns the operation that was probably meant, or where all are listed.
func suggest(name string) string {
	for _, op := range protocol.Operations() {
		if strings.EqualFold(op.Name, strings.ReplaceAll(name, "-", "")) {
			return "did you mean " + op.Name + "?"
		}
	}
	return "keyturn kms --help lists them"
}

// kmsError prints an error of the service as the official CLI does.
func kmsError(e *env, err error) error {
	var s *kms.Error
	if !errors.As(err, &s) {
		return err
	}
	fmt.Fprintf(e.stderr,
		"ERROR: SDK.ServerError\nErrorCode: %s\nRecommend: %s\nRequestId: %s\nMessage: %s\nRespHeaders: %v\n",
		s.Code, s.Recommend, s.RequestID, s.Message, map[string][]string(http.Header(s.Header)))
	return coded{exitFailed, ""}
}
