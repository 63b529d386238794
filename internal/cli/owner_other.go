//go:build !unix

package cli

import "io/fs"

// fileOwner returns -1: this system has no such owners.
func fileOwner(fs.FileInfo) int { return -1 }
