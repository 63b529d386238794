//go:build unix

package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// CheckUser verifies that commands can run as their user, and that this user cannot read what is
// private.
func (c Config) CheckUser() error {
	if len(c.Commands) == 0 || c.User.Self {
		return nil
	}
	self := os.Geteuid()
	switch {
	case c.User.UID <= 0 || c.User.GID <= 0:
		return errors.New(
			"command-user is required: a user who is not root, such as keyturn-command; a server that is not " +
				"root can only use \"self\", with which commands can read the server's keys",
		)
	case c.User.UID == self:
		return errors.New("command-user is the server's own user, whose files commands could read; name another one")
	case self != 0:
		return errors.New(
			"command-user: only a server that runs as root can run commands as another user; use \"self\" to " +
				"accept that they can read the server's keys",
		)
	}
	var errs []error
	for _, path := range c.Private {
		if err := c.User.checkNoAccess(path); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// checkNoAccess verifies that the user cannot read a file or enter a directory, by its owner and
// mode. Access control lists show in the bits of the group, which therefore count for everybody.
func (u User) checkNoAccess(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("command-user: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == u.UID || info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf(
			"command-user: user %d could read %s; give it to the server's user, with chmod go-rwx", u.UID, path,
		)
	}
	return nil
}
