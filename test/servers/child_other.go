//go:build !linux

package servers

import "os/exec"

// bind cannot promise here that a server dies with the process that started it.
func bind(cmd *exec.Cmd) { ownGroup(cmd) }
