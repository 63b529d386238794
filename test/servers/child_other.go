//go:build !linux

package servers

import "syscall"

// childAttr cannot promise here that a server dies with the process that started it.
func childAttr() *syscall.SysProcAttr { return nil }
