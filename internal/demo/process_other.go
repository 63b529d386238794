//go:build !unix

package demo

import (
	"os"
	"os/exec"
	"syscall"
)

// No child is started where there are no Unix process groups: see findPostgres and findSSHD.
func detach(*exec.Cmd, *osAccount, syscall.Signal) {}

func killGroup(p *os.Process) { _ = p.Kill() }
