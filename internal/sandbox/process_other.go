//go:build !unix

package sandbox

import (
	"os"
	"os/exec"
	"syscall"
)

// No child is started where there are no Unix process groups: see findPostgres and findSSHD.
func detach(*exec.Cmd, *Account, syscall.Signal) {}

func killGroup(p *os.Process) { _ = p.Kill() }
