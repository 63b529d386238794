// Package agent is the consumer side for programs in any language. It keeps secrets fresh by package consumer and gives them
// on as files rendered from templates, as the environment of a program (keyturn exec), by a small HTTP interface on localhost, and by
// the Alibaba wire API itself, so that an unmodified client survives an outage of the server.
//
// What it promises: a file is only ever replaced as a whole, by a complete set of values, and never removed; a value reaches no
// log, no error, no argument and no page; a configuration with a mistake changes nothing. Everything that it serves is on loopback or a
// Unix socket. It needs no privilege but the right to write where its files go.
package agent
