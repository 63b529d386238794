// Package agent provides secrets to programs in any language. It keeps them fresh by package
// consumer and serves them as files rendered from templates, as the environment of a program
// (keyturn exec), by a small HTTP interface on localhost, and by the Alibaba wire API, so that an
// unmodified client survives an outage of the server.
//
// The agent guarantees that a file is only ever replaced as a whole, by a complete set of values,
// and never removed; that no value reaches a log, an error, an argument or a page; and that a
// configuration with a mistake changes nothing. It listens on loopback or on a Unix socket, and
// needs no privilege but the right to write its files.
package agent
