//go:build !unix

package command

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/sensitive"
)

type sort string

const (
	isExecutable sort = "executable file"
)

// Whose file it is, and process groups, are asked of Unix.
func trusted(name, _ string, _ sort) error { return errors.New(name + ": commands run on Unix only") }

func reason(err error) error { return err }

// CheckUser has nothing to check where no commands run.
func (Config) CheckUser() error { return nil }

func (r *runner) run(_ context.Context, _, what string, _ []byte, secrets []sensitive.Value) (plugin.Answer, error) {
	return plugin.Answer{}, target.Failed(target.Denied, "", what+": commands run on Unix only", secrets...)
}
