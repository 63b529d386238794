//go:build unix && !linux

package demo

import "syscall"

// Only Linux can promise this; elsewhere a killed demo leaves its servers to the user.
func signalOnDeath(*syscall.SysProcAttr, syscall.Signal) {}
