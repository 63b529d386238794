//go:build !linux

package agent

import (
	"errors"

	"github.com/keyturn/keyturn/sensitive"
)

// Load refuses.
func (keyring) Load(string) (sensitive.Value, error) {
	return sensitive.Value{}, errors.New("keyrings of the kernel are Linux's; use file")
}
