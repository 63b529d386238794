package postgresql

import (
	"encoding/binary"
	"io"

	"github.com/jackc/pgx/v5/pgproto3"
)

// admission reports whether the server has accepted a login. An error that follows, such as a
// connection limit of the role, proves the password; the same error before it does not: a pooler
// knows a database before it knows the caller. Nothing after an error is read, and no later message
// accepts a login.
type admission struct {
	accepted bool
	refused  bool
	scram    bool   // the server has asked for the password by SCRAM
	header   []byte // of the message that is being read
	skip     int    // bytes of that message that are still to come
	body     []byte // the first four bytes of an authentication request
}

// frontend reads the server's messages through a.
func (a *admission) frontend(r io.Reader, w io.Writer) *pgproto3.Frontend {
	return pgproto3.NewFrontend(&watched{r, a}, w)
}

type watched struct {
	io.Reader
	by *admission
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.by.see(p[:n])
	return n, err
}

// see reads messages: a type, the length of the rest and the rest. An authentication request has
// type R; its number 0 says that the login is accepted, 10 that the password is asked for by SASL.
func (a *admission) see(p []byte) {
	for len(p) > 0 && !a.accepted && !a.refused {
		if len(a.header) < 5 {
			n := min(5-len(a.header), len(p))
			a.header, p = append(a.header, p[:n]...), p[n:]
			if len(a.header) == 5 {
				a.skip, a.body = int(binary.BigEndian.Uint32(a.header[1:]))-4, nil
				a.refused = a.header[0] == 'E'
			}
		} else {
			n := min(max(a.skip, 0), len(p))
			a.body = append(a.body, p[:min(n, 4-len(a.body))]...)
			a.skip, p = a.skip-n, p[n:]
			if a.header[0] == 'R' && len(a.body) == 4 {
				number := binary.BigEndian.Uint32(a.body)
				a.accepted, a.scram = number == 0, a.scram || number == 10
			}
		}
		if len(a.header) == 5 && a.skip <= 0 {
			a.header = a.header[:0]
		}
	}
}

// admittedError wraps an error that came after the server had accepted the login.
type admittedError struct{ err error }

func (e *admittedError) Error() string { return e.err.Error() }
func (e *admittedError) Unwrap() error { return e.err }

// scramError wraps the refusal of a login whose password the server had asked for by SCRAM.
type scramError struct{ err error }

func (e *scramError) Error() string { return e.err.Error() }
func (e *scramError) Unwrap() error { return e.err }
