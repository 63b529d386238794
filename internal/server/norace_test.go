//go:build !race

package server_test

const memoryFactor = 1
