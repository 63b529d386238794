package servers

import "syscall"

// childAttr lets a server die with the process that started it, so that a killed test leaves none
// behind.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
