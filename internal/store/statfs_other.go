//go:build !linux && !darwin

package store

// freeSpace does not know of file systems here.
func freeSpace(string) (free uint64, readOnly, ok bool) { return 0, false, false }
