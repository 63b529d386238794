//go:build race

package server_test

// memoryFactor is how much more memory than the bound a server with the race detector may take.
const memoryFactor = 3
