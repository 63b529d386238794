package command

import (
	"context"

	"github.com/keyturn/keyturn/internal/target"
)

// KindWithoutNamespaces is [Kind] where the server has no right to make namespaces.
func KindWithoutNamespaces(c Config) target.Kind {
	return kind(c, newIsolation(func(context.Context) bool { return false }))
}
