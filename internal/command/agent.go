package command

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/keyturn/keyturn/internal/agent"
	"github.com/keyturn/keyturn/internal/api/rpc"
	"github.com/keyturn/keyturn/internal/auth"
)

// Agent gives secrets to the programs of this machine.
type Agent struct {
	Config string `help:"YAML file of the agent (docs/agent.md)." short:"c" required:"" placeholder:"FILE"`
	Check  bool   `help:"Check the file and exit: nothing is contacted, nothing is written."`
}

func (c *Agent) Run(e *Env) error {
	if c.Check {
		warnings, err := agent.Check(c.Config)
		if err != nil {
			return Exit{ExitUsage, err.Error()}
		}
		for _, w := range warnings {
			fmt.Fprintf(e.Stderr, "warning: %s\n", w)
		}
		_, err = fmt.Fprintf(e.Stdout, "%s is a configuration of an agent.\n", c.Config)
		return err
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	err := agent.Run(e.Ctx, agent.Options{
		Path:      c.Config,
		UserAgent: "keyturn-agent/" + Version,
		Reload:    reload,
		Logger:    func(l agent.Log) *slog.Logger { return NewLogger(e.Stderr, l.SlogLevel(), l.Format == "json") },
		Door: func(g *agent.Gate, a *auth.Authenticator, log *slog.Logger) http.Handler {
			return &rpc.Door{Gate: g, Auth: a, Log: log}
		},
		Serving: func(places map[string]string) {
			for _, role := range slices.Sorted(maps.Keys(places)) {
				fmt.Fprintf(e.Stdout, "Agent serves %s at %s\n", role, places[role])
			}
		},
	})
	var mistakes *agent.ConfigError
	if errors.As(err, &mistakes) {
		return Exit{ExitUsage, err.Error()}
	}
	return err
}

// Exec runs a program with secrets in its environment.
type Exec struct {
	Profile     string        `help:"Profile to use instead of ${profile_variable} or the current one." placeholder:"NAME"`
	Secret      []string      `required:"" help:"Secret to read; may be repeated." placeholder:"NAME=PREFIX" sep:"none"`
	Allow       []string      `help:"Variables that secrets with an empty prefix may set." placeholder:"NAME,…"`
	OnChange    string        `help:"On a change: restart, signal:NAME or ignore." default:"restart" placeholder:"WHAT"`
	Grace       time.Duration `help:"On a restart, time for the program to end before it is killed." default:"10s"`
	Wait        time.Duration `help:"Longest time to wait for the first values." default:"30s"`
	Interval    time.Duration `help:"Interval of the refresh without push (5m)." placeholder:"DURATION"`
	MaxStale    time.Duration `help:"Greatest age of a value to start with (no bound)." placeholder:"DURATION"`
	LastGood    string        `help:"Directory for the last known values, encrypted." placeholder:"DIR" type:"path"`
	LastGoodKey string        `help:"Key that encrypts them; created if missing." placeholder:"FILE" type:"path"`
	LogLevel    string        `help:"debug, info, warn or error." default:"warn" enum:"debug,info,warn,error"`
	Command     []string      `arg:"" help:"Program and its arguments, after --."`
}

// accessKeyVariables are those by which keyturn itself is given its access key. The program has its
// own.
var accessKeyVariables = []string{"KEYTURN_ACCESS_KEY_ID", "KEYTURN_ACCESS_KEY_SECRET", "KEYTURN_SECURITY_TOKEN"}

// Help explains what the flags have no room for.
func (*Exec) Help() string {
	return "The JSON members of a secret become variables that begin with its PREFIX. With an empty prefix, --allow " +
		"must name the variables that the secret may set.\n\n" +
		"--last-good and --last-good-key keep the last known values, sealed, for a start while the server is away. " +
		"The key must not be in the directory."
}

func (c *Exec) Run(e *Env) error {
	x, err := c.exec(e)
	if err == nil {
		err = x.Check()
	}
	if err != nil {
		return Exit{ExitUsage, err.Error()}
	}
	code, err := x.Run(e.Ctx)
	var exit *agent.ExitError
	switch {
	case errors.As(err, &exit):
		return Exit{exit.Code, err.Error()}
	case err != nil:
		return Exit{ExitFailed, err.Error()}
	case code != ExitOK:
		return Exit{code, ""}
	}
	return nil
}

func (c *Exec) exec(e *Env) (*agent.Exec, error) {
	p, err := Resolve(c.Profile)
	if err != nil {
		return nil, err
	}
	server, err := p.Config("keyturn-exec")
	if err != nil {
		return nil, err
	}
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.LogLevel)) // the parser has checked it
	x := &agent.Exec{
		Args:     c.Command,
		Allow:    c.Allow,
		OnChange: c.OnChange,
		Grace:    c.Grace,
		Wait:     c.Wait,
		Server:   server,
		Interval: c.Interval,
		MaxStale: c.MaxStale,
		Log:      NewLogger(e.Stderr, level, false),
	}
	var ok [3]bool
	x.Stdin, ok[0] = e.Stdin.(*os.File)
	x.Stdout, ok[1] = e.Stdout.(*os.File)
	x.Stderr, ok[2] = e.Stderr.(*os.File)
	if !ok[0] || !ok[1] || !ok[2] {
		return nil, errors.New("keyturn exec needs files or terminals as its own input and output")
	}
	x.Terminal = term.IsTerminal(int(x.Stdin.Fd()))
	x.Env = slices.DeleteFunc(os.Environ(), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return slices.Contains(accessKeyVariables, name)
	})
	return x, c.parse(x)
}

// parse adds the secrets and the directory of last known values. It reports every mistake at once.
func (c *Exec) parse(x *agent.Exec) error {
	var errs []error
	for _, s := range c.Secret {
		parsed, err := agent.ParseEnvSecret(s)
		errs = append(errs, err)
		x.Secrets = append(x.Secrets, parsed)
	}
	switch {
	case c.LastGood != "" && c.LastGoodKey != "":
		x.LastGood = &agent.LastGood{Dir: c.LastGood, Key: agent.SealKeySource{File: c.LastGoodKey}}
	case c.LastGood != c.LastGoodKey:
		errs = append(errs, errors.New("--last-good and --last-good-key go together: set both or neither"))
	}
	return errors.Join(errs...)
}
