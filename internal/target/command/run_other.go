//go:build !unix

package command

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/plugin"
	"github.com/keyturn/keyturn/sensitive"
)

// Whose file it is, and process groups, are asked of Unix.
func checkExecutable(string) (string, error) { return "", errors.New("commands run on Unix only") }

func canIsolate(context.Context) bool { return false }

// CheckUser has nothing to check where no commands run.
func (Config) CheckUser() error { return nil }

func (r *runner) run(
	_ context.Context, _, what string, _ bool, _ []byte, secrets []sensitive.Value,
) (plugin.Answer, error) {
	return plugin.Answer{}, target.Failed(target.Denied, "", what+": commands run on Unix only", secrets...)
}
