//go:build !linux

package keyringkey

import (
	"errors"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/sensitive"
)

type key string

// New returns a key whose Load fails: only Linux has such a keyring.
func New(name string) consumer.Key { return key(name) }

// Load implements [consumer.Key].
func (key) Load(string) (sensitive.Value, error) {
	return sensitive.Value{}, errors.New("only Linux has a keyring of the kernel; " +
		"use consumer.KeyFile or consumer.SystemdCredential")
}
