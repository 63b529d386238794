//go:build !linux

package store

// preallocated does nothing: there is no portable way to allocate the blocks of a file.
type preallocated struct{}

func (preallocated) update(string) error { return nil }
