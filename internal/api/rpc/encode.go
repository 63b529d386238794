package rpc

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/protocol"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
)

const (
	jsonType = "application/json;charset=utf-8"
	xmlType  = "text/xml;charset=utf-8" // exactly so: the V2 SDK compares it
	// retryAfter is how long a throttled client is asked to wait when no better time is known. The
	// official CLI waits only if asked.
	retryAfter = 500 * time.Millisecond
	minRetry   = 10 * time.Millisecond
)

// encode returns the body of an answer.
func encode(operation string, response any, asXML bool) ([]byte, error) {
	if asXML {
		return wire.XML(operation+"Response", response)
	}
	return wire.AppendJSON(make([]byte, 0, 512), response), nil
}

// Header values that many answers share. net/http only reads them.
var (
	jsonHeader    = []string{jsonType}
	xmlHeader     = []string{xmlType}
	noStoreHeader = []string{"no-store"}
)

// shortBody is the length up to which net/http sets Content-Length after the handler has returned.
const shortBody = 2 << 10

func write(w http.ResponseWriter, status int, body []byte, asXML bool) {
	h := w.Header()
	h["Content-Type"] = jsonHeader
	if asXML {
		h["Content-Type"] = xmlHeader
	}
	if len(body) > shortBody {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	h["Cache-Control"] = noStoreHeader
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that has gone needs no answer
}

// envelope is the form of an error on the wire. It has every member that an official client checks,
// in the type that the client expects.
type envelope struct {
	XMLName            xml.Name         `json:"-" xml:"Error"`
	HTTPStatus         int              `json:"HttpStatus" xml:"HttpStatus"`
	RequestID          string           `json:"RequestId" xml:"RequestId"`
	HostID             string           `json:"HostId" xml:"HostId"`
	Code               string           `json:"Code" xml:"Code"`
	Message            string           `json:"Message" xml:"Message"`
	Recommend          string           `json:"Recommend" xml:"-"`
	AccessDeniedDetail *protocol.Denial `json:"AccessDeniedDetail,omitempty" xml:"-"`
}

func writeError(w http.ResponseWriter, id, host string, err error, asXML bool) protocol.Code {
	c, retry := protocol.CodeFor(err), time.Duration(0)
	var elsewhere *kms.Error
	if errors.As(err, &elsewhere) {
		c = protocol.Code{Status: elsewhere.HTTPStatus, Code: elsewhere.Code, Message: elsewhere.Message}
		id = cmp.Or(elsewhere.RequestID, id) // the ID in the trail of the other endpoint
		retry = elsewhere.RetryAfter()
	}
	e := envelope{HTTPStatus: c.Status, RequestID: id, HostID: host, Code: c.Code, Message: c.Message}
	var d *protocol.DeniedError
	if errors.As(err, &d) {
		e.AccessDeniedDetail = &d.Detail
	}
	if fault.KindOf(err) == fault.Throttled {
		retry = retryOf(err)
	}
	if retry > 0 {
		w.Header().Set("x-acs-retry-after", strconv.FormatInt(retry.Milliseconds(), 10))
	}
	write(w, c.Status, e.encode(asXML), asXML)
	return c
}

func retryOf(err error) time.Duration {
	var f *fault.Error
	if errors.As(err, &f) && f.Retry > 0 {
		return max(f.Retry, minRetry)
	}
	return retryAfter
}

func (e envelope) encode(asXML bool) []byte {
	if asXML {
		body, _ := xml.Marshal(e) // strings and a number cannot fail
		return append([]byte("<?xml version='1.0' encoding='UTF-8'?>\n"), body...)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(e) // strings and a number cannot fail
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
