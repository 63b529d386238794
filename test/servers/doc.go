// Package servers starts real servers for tests: throw-away instances on loopback whose files are
// in a temporary directory.
//
// Each start function skips the test, with a reason, where the program is not installed, and
// stops the server with the test. Tests that share a server are subtests of one test that started
// it.
package servers
