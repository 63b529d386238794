package upgrade_test

import (
	"time"

	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// manifest says what an archive holds and what the release that wrote it answered.
type manifest struct {
	// At is the time after the last call.
	At      time.Time `json:"at"`
	Account string    `json:"account"`
	// Endpoint is where the server was reached; the last known values are bound to it.
	Endpoint string `json:"endpoint"`
	// Keys are access keys by the name of their user, "root" for the account.
	Keys map[string]accessKey `json:"keys"`
	// Reads are calls that change nothing, with what was answered.
	Reads []read `json:"reads"`
	// LastGood are values in the cache of the consumer, by secret.
	LastGood map[string]string `json:"last_good"`
	// Records is how many records the audit trail has.
	Records uint64 `json:"records"`
}

// accessKey is one that is worth nothing: it is of a store that was made for this test.
type accessKey struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

func (k accessKey) credentials() sign.Credentials {
	return sign.Credentials{AccessKeyID: k.ID, AccessKeySecret: sensitive.New(k.Secret)}
}

// read is one call and its answer: the JSON, or the error code.
type read struct {
	Who     string   `json:"who"`
	Version string   `json:"version"`
	Action  string   `json:"action"`
	Params  []string `json:"params"` // names and values in turns
	Answer  any      `json:"answer,omitempty"`
	Code    string   `json:"code,omitempty"`
}

func (r read) params() sign.Params {
	var p sign.Params
	for i := 0; i < len(r.Params); i += 2 {
		p = append(p, sign.Param{Name: r.Params[i], Value: r.Params[i+1]})
	}
	return p
}
