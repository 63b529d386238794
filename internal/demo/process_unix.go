//go:build unix

package demo

import (
	"os"
	"os/exec"
	"syscall"
)

// detach gives the child a process group of its own, so that Ctrl-C in a terminal reaches the demo alone,
// which then stops the child in order.
func detach(cmd *exec.Cmd, as *osAccount, onDeath syscall.Signal) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(as.uid), Gid: uint32(as.gid)}
	}
	signalOnDeath(cmd.SysProcAttr, onDeath)
}

func killGroup(p *os.Process) {
	_ = syscall.Kill(-p.Pid, syscall.SIGKILL) // fails only when nobody is left
}
