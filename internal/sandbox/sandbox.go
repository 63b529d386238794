// Package sandbox starts throw-away servers for the demo and the tests: a PostgreSQL cluster, an
// OpenSSH server.
//
// They are the real programs that the machine has, started for the occasion as child processes.
// They listen on loopback only, keep their files in a directory of their own, end with this process
// where the system can promise that, and Close removes all they wrote.
package sandbox
