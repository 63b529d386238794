//go:build !linux

package agent

import "errors"

func keyringKey(string) ([]byte, error) {
	return nil, errors.New("keyrings of the kernel are Linux's; use file")
}
