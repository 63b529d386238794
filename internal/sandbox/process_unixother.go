//go:build unix && !linux

package sandbox

import "syscall"

// Only Linux can promise this; elsewhere a killed process leaves its servers to the user.
func signalOnDeath(*syscall.SysProcAttr, syscall.Signal) {}
