// Package cli is the command line, one file for each command group. Everything that it does to a
// server goes through the public API. A command reads a value from standard input or a file, never
// from an argument; `keyturn kms` takes what the documented `aliyun kms` command takes.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"golang.org/x/term"

	"github.com/keyturn/keyturn/internal/command"
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
)

const (
	exitOK      = command.ExitOK
	exitFailed  = command.ExitFailed
	exitUsage   = command.ExitUsage
	exitMissing = command.ExitMissing
)

// globals are the flags of every command that calls a server: a group of commands embeds them.
type globals struct {
	Profile string `help:"Profile to use instead of ${profile_variable} or the current one." placeholder:"NAME"`
	Output  string `help:"Form of the result: ${enum}." enum:"table,json" default:"table" short:"o"`
}

// AfterApply puts the flags of a group into the env that its commands are run with.
func (g *globals) AfterApply(e *env) error {
	e.globals = globals{Profile: command.NamedProfile(g.Profile), Output: g.Output}
	return nil
}

type commands struct {
	Serve      serveCommand      `cmd:"" help:"Run the server."`
	Kms        kmsCommand        `cmd:"" passthrough:"" help:"Call any API operation with the syntax of aliyun kms."`
	Secret     secretCommand     `cmd:"" help:"Read and write secrets."`
	Target     targetCommand     `cmd:"" help:"Manage targets: the systems whose credentials are rotated."`
	Rotation   rotationCommand   `cmd:"" help:"Rotate credentials, show rotations, and repair them."`
	Admin      adminCommand      `cmd:"" help:"Rotate and disable the access keys of the root account."`
	RootKey    rootKeyCommand    `cmd:"" name:"root-key" help:"Rotate the root key and what it wraps."`
	Ca         caCommand         `cmd:"" name:"ca" help:"Replace the local CA of a server."`
	User       userCommand       `cmd:"" help:"Manage users and their access keys."`
	Group      groupCommand      `cmd:"" help:"Manage groups of users."`
	Policy     policyCommand     `cmd:"" help:"Manage policies: who may do what."`
	Agent      command.Agent     `cmd:"" help:"Provide secrets to programs on this machine: files, HTTP, wire API."`
	Exec       command.Exec      `cmd:"" help:"Run a program with secrets in its environment."`
	Audit      auditCommand      `cmd:"" help:"Check the audit trail."`
	Profile    profileCommand    `cmd:"" help:"Manage profiles: the endpoint and access key of each server."`
	Version    versionCommand    `cmd:"" help:"Print the version."`
	Completion completionCommand `cmd:"" help:"Print a script that completes commands in a shell."`

	ShowVersion versionFlag     `name:"version" help:"Print the version."`
	Complete    completeCommand `cmd:"" name:"__complete" hidden:"" passthrough:""`
}

// newCommands returns the commands with the flags that derive from the settings of the server.
func newCommands() *commands {
	var c commands
	table := server.NewSettings().Table()
	c.Serve.settingFlags = newSettingFlags("", table)
	c.Admin.offlineFlags = newOfflineFlags(table)
	return &c
}

// env is what a command works with.
type env struct {
	globals        // of the command's group
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer // for texts; see [printable]
	raw, rawErr    io.Writer // the same, for a value and for other programs
	model          *kong.Application
	madeID         string      // of a version, by newID
	client         *kms.Client // of a command that acts for several secrets; nil for any other
}

// newID returns an ID for a version that the command line does not name.
func (e *env) newID() string {
	e.madeID = uuid.NewString()
	return e.madeID
}

// exit ends the parser, which has no other way to end after it has printed help.
type exit int

// Run runs one command line and returns the exit code.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case exit:
			code = int(r)
		default:
			panic(r)
		}
	}()
	e := &env{ctx: ctx, stdin: stdin, raw: stdout, rawErr: stderr}
	e.stdout, e.stderr = &printable{w: stdout}, &printable{w: stderr}
	parser, err := newParser(e)
	if err != nil {
		fmt.Fprintln(e.stderr, "keyturn:", err)
		return exitFailed
	}
	selected, err := parser.Parse(ordered(args))
	if err != nil {
		fmt.Fprintf(e.stderr, "keyturn: %s\n", command.Usage("keyturn", err))
		return exitUsage
	}
	e.model = parser.Model
	err = selected.Run()
	if err != nil && e.madeID != "" {
		err = &command.Repeat{Err: err, Flag: "--version-id=" + e.madeID}
	}
	if selected.Selected() != nil && selected.Selected().Name != "kms" { // which is in the words of the API
		err = inFlags(e.suggest(err), selected.Selected())
	}
	return command.Report(e.stderr, "keyturn", err)
}

// ordered returns arguments in the order of the parser: "help" before a command is --help after it,
// and the flags of a group of commands, such as --profile, may stand before its name.
func ordered(args []string) []string {
	if len(args) == 0 {
		return []string{"--help"}
	}
	n, leading := 0, flagsOf(&globals{})
	for n < len(args) {
		takesValue, known := leading[flagName(args[n])]
		if !known {
			break
		}
		if takesValue && !strings.Contains(args[n], "=") {
			n++ // its value
		}
		n++
	}
	if n < len(args) && args[n] == "help" { // which needs none of the flags
		return append(slices.Clone(args[n+1:]), "--help")
	}
	if n == 0 || n >= len(args) || strings.HasPrefix(args[n], "-") {
		return args
	}
	return slices.Concat(args[n:n+1], args[:n], args[n+1:])
}

// flagsOf returns the flags that the parser reads into a struct and those that it embeds, and
// whether a value follows each.
func flagsOf(of any) map[string]bool {
	parser, err := kong.New(of, kong.NoDefaultHelp(), vars())
	if err != nil {
		panic("cli: " + err.Error()) // the same flags are in newParser, which has read them
	}
	flags := map[string]bool{}
	for _, f := range parser.Model.Flags {
		flags["--"+f.Name] = !f.IsBool()
		if f.Short != 0 {
			flags["-"+string(f.Short)] = !f.IsBool()
		}
	}
	return flags
}

// flagName returns an argument without a value that is attached by =.
func flagName(arg string) string {
	name, _, _ := strings.Cut(arg, "=")
	return name
}

func newParser(e *env) (*kong.Kong, error) {
	return kong.New(newCommands(),
		kong.Name("keyturn"),
		kong.Description("A secrets manager that rotates credentials without an outage.\n\nCommands reach the server of the "+
			"current profile, or of "+command.ProfileVariable+". Without a profile: KEYTURN_ENDPOINT, KEYTURN_ACCESS_KEY_ID, "+
			"KEYTURN_ACCESS_KEY_SECRET, KEYTURN_CA_FILE (docs/operations.md). --profile NAME and --output json may stand "+
			"before or after a command that has them."),
		kong.Writers(e.stdout, e.stderr),
		kong.Bind(e, &command.Env{Ctx: e.ctx, Stdin: e.stdin, Stdout: e.raw, Stderr: e.rawErr}),
		kong.Exit(func(code int) { panic(exit(code)) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		vars(),
	)
}

// vars returns what the tags of flags refer to.
func vars() kong.Vars {
	return kong.Vars{
		"profile_variable": command.ProfileVariable,
		"strategies":       fmt.Sprintf(",%s,%s,%s", target.Single, target.Overlap, target.Double),
		"strategy_help": fmt.Sprintf("%s, %s or %s (by type and target).",
			target.Single, target.Overlap, target.Double),
	}
}

// coded carries an exit code other than 1, or an empty text because everything is printed already.
type coded struct {
	code int
	text string
}

func (c coded) Error() string { return c.text }

// Unwrap returns the error as [command.Report] knows it.
func (c coded) Unwrap() error { return command.Exit{Code: c.code, Text: c.text} }

// isTerminal reports whether w is a terminal, where commands print colours and ask questions.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
