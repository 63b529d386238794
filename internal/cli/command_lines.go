package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/internal/target/command"
)

// commandLines returns the commands that targets may name, and the user that they run as.
func commandLines(s *server.Settings) (command.Config, error) {
	out := command.Config{Commands: map[string]command.Line{}, Private: []string{s.DataDir}}
	for _, path := range []string{s.AuditDir, s.RootKeyFile()} {
		if path != "" {
			out.Private = append(out.Private, path)
		}
	}
	var errs []error
	for _, text := range s.Commands {
		name, line, err := command.ParseLine(text)
		if _, twice := out.Commands[name]; err == nil && twice {
			err = fmt.Errorf("there are two commands %s", name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("command: %w", err))
			continue
		}
		out.Commands[name] = line
		if err := line.Check(); err != nil { // it may appear later: it is checked again before each run
			s.Logger.Warn("a command cannot be run as it is: its targets cannot be opened until this is corrected",
				"command", name, "err", err)
		}
	}
	if len(s.CommandDirs) > 0 {
		s.Logger.Warn("the setting command-dir has no effect: name each command in the setting command (docs/operations.md)")
	}
	var err error
	if out.User, err = commandUser(s.CommandUser); err != nil {
		errs = append(errs, fmt.Errorf("command-user: %w", err))
	}
	if len(errs) == 0 {
		errs = append(errs, out.CheckUser())
	}
	if errors.Join(errs...) == nil && !out.Isolates(context.Background()) {
		s.Logger.Warn("commands get no PID namespace of their own, so one runs at a time: that takes the capability " +
			"CAP_SYS_ADMIN (docs/operations.md)")
	}
	return out, errors.Join(errs...)
}

// commandUser reads the setting of that name; empty means that none is set.
func commandUser(who string) (u command.User, err error) {
	switch {
	case who == "self" && os.Geteuid() == 0:
		return u, errors.New("self would run commands as root; name another user")
	case who == "self":
		u.Self = true
	case who != "":
		u.UID, u.GID, err = userIDs(who)
	}
	return u, err
}

// userIDs reads the name of a user, or UID:GID.
func userIDs(s string) (uid, gid int, err error) {
	user1, group, ok := strings.Cut(s, ":")
	if !ok {
		u, err := user.Lookup(s)
		if err != nil {
			return 0, 0, fmt.Errorf("%q is not a user of this machine; UID:GID names one without an entry", s)
		}
		user1, group = u.Uid, u.Gid
	}
	uid, uerr := strconv.Atoi(user1)
	gid, gerr := strconv.Atoi(group)
	if uerr != nil || gerr != nil || uid <= 0 || gid <= 0 {
		return 0, 0, fmt.Errorf("%q is not a user and group other than root, as UID:GID", s)
	}
	return uid, gid, nil
}
