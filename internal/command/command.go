// Package command has the commands that run beside applications, agent and exec, and what every
// command shares: the profile by which a server is reached, exit codes, and how an error is
// printed. It links no server, so that keyturn-agent can be small; package cli adds all other
// commands.
package command

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"runtime"

	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/kms"
)

// Version is the release, set by the build.
var Version = "0.1.0"

// VersionLine returns what `version` prints.
func VersionLine(program string) string {
	return fmt.Sprintf("%s %s %s %s/%s", program, Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// Exit codes: `keyturn kms` exits as the official CLI does.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2
	ExitMissing = 3
)

// Env is what a command works with.
type Env struct {
	Ctx            context.Context
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Exit carries the exit code of a failed command. An empty text means that everything is printed
// already.
type Exit struct {
	Code int
	Text string
}

func (e Exit) Error() string { return e.Text }

// Report prints the outcome of a command and returns the exit code.
func Report(stderr io.Writer, program string, err error) int {
	var exit Exit
	var service *kms.Error
	var unanswered *kms.UnansweredError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		if exit.Text != "" {
			fmt.Fprintf(stderr, "%s: %s\n", program, exit.Text)
		}
		return exit.Code
	case errors.As(err, &service):
		fmt.Fprintf(stderr, "%s: %s\n  code %s, request %s\n", program, service.Message, service.Code,
			service.RequestID)
		if service.DeniedAction != "" {
			fmt.Fprintf(stderr, "  not allowed: %s; the audit record of the request names the resource\n",
				service.DeniedAction)
		}
	case errors.As(err, &unanswered) && mutates(unanswered.Action):
		fmt.Fprintf(stderr, "%s: %s\n  the request was sent and not answered, so the server may have carried it out\n  %s\n",
			program, err, repeating(err, unanswered))
	case isDial(err):
		fmt.Fprintf(stderr, "%s: %s\n  check that the server runs and that the endpoint is right: "+
			"keyturn profile show, or KEYTURN_ENDPOINT\n", program, err)
	case errors.As(err, &unknown):
		fmt.Fprintf(stderr, "%s: %s\n  name the certificate of the CA (a copy of the server's DATA_DIR/tls/ca.pem or, "+
			"with tls-cert-file, your own CA's certificate): keyturn profile set or import with --ca-file, or "+
			"KEYTURN_CA_FILE\n", program, err)
	case errors.As(err, &name):
		fmt.Fprintf(stderr, "%s: %s\n  reach the server by a name of its certificate, or add the name to it: "+
			"keyturn serve --tls-name\n", program, err)
	default:
		fmt.Fprintf(stderr, "%s: %s\n", program, err)
	}
	return ExitFailed
}

// Repeat is the error of a call for which the command made an ID: the command that repeats the call
// has to name it.
type Repeat struct {
	Err  error
	Flag string // with the ID
}

func (r *Repeat) Error() string { return r.Err.Error() }

// Unwrap returns Err.
func (r *Repeat) Unwrap() error { return r.Err }

// mutates reports whether an operation changes something.
func mutates(action string) bool {
	op := protocol.Named(action)
	return op == nil || op.Mutates
}

// repeating says what an operator can do about a call that was not answered.
func repeating(err error, unanswered *kms.UnansweredError) string {
	var repeat *Repeat
	switch {
	case !unanswered.Idempotent:
		return "check the state before you repeat the command: a second call may have a further effect"
	case errors.As(err, &repeat):
		return "once the server runs, repeat the command with " + repeat.Flag + ": that is safe, as it is the same " +
			"request"
	}
	return "once the server runs, repeat the same command: that is safe"
}

// isDial reports whether no connection to the server was possible.
func isDial(err error) bool {
	var request *url.Error
	var dial *net.OpError
	return errors.As(err, &request) && errors.As(err, &dial) && dial.Op == "dial"
}

// NewLogger returns the log of the operator.
func NewLogger(stderr io.Writer, level slog.Level, asJSON bool) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if asJSON {
		return slog.New(slog.NewJSONHandler(stderr, o))
	}
	return slog.New(slog.NewTextHandler(stderr, o))
}
