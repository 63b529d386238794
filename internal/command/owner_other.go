//go:build !unix

package command

import "io/fs"

// fileOwner returns -1: this system has no such owners.
func fileOwner(fs.FileInfo) int { return -1 }
