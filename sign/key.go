package sign

import (
	"crypto/fips140"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"sync"

	"github.com/keyturn/keyturn/sensitive"
)

// Key verifies signatures with the secret of one access key. It computes once what depends on the
// secret alone. It is safe for concurrent use.
type Key struct {
	secret                 sensitive.Value
	v1SHA1, v1SHA256, acs3 macs
}

// NewKey makes a secret ready.
func NewKey(secret sensitive.Value) *Key {
	return &Key{
		secret:   secret,
		v1SHA1:   newMACs(sha1.New, secret.Reveal()+"&"),
		v1SHA256: newMACs(sha256.New, secret.Reveal()+"&"),
		acs3:     newMACs(sha256.New, secret.Reveal()),
	}
}

// VerifyV1 is the function [VerifyV1] with the secret of the key, without the string to sign, which
// [StringToSignV1] returns.
func (k *Key) VerifyV1(method string, p Params) (ok bool, err error) {
	signature, _ := p.Get("Signature")
	if signature == "" {
		return false, errNoSignature
	}
	algorithm, _ := p.Get("SignatureMethod")
	pool := &k.v1SHA1
	switch algorithm {
	case "", HMACSHA1:
		if fips140.Enforced() {
			return false, errSHA1 // the hash would panic
		}
	case HMACSHA256:
		pool = &k.v1SHA256
	default:
		return false, errAlgorithm
	}
	m := pool.get()
	defer pool.put(m)
	m.text = appendStringToSignV1(m.text, method, p)
	return equalBase64(signature, m.sum()), nil
}

// Verify is the function [Verify] with the secret of the key.
func (k *Key) Verify(a Authorization, r Request) bool {
	if a.Scheme != ACS3 {
		return Verify(k.secret, a, r)
	}
	var scratch [2048]byte // a usual request fits, and then no buffer is allocated
	digest := sha256.Sum256(appendRequest(scratch[:0], a.Scheme, r, a.SignedHeaders))
	m := k.acs3.get()
	defer k.acs3.put(m)
	m.text = appendTextACS(m.text, a.Scheme, digest)
	var want [2 * sha256.Size]byte
	hex.Encode(want[:], m.sum())
	return subtle.ConstantTimeCompare(want[:], []byte(a.Signature)) == 1
}

// macs keeps keyed hashes that are not in use, with the buffers that go with them.
type macs struct{ pool *sync.Pool }

type mac struct {
	hash hash.Hash
	text []byte // what is signed; it holds parameter values
	out  [sha256.Size]byte
}

func newMACs(newHash func() hash.Hash, key string) macs {
	return macs{&sync.Pool{New: func() any { return &mac{hash: hmac.New(newHash, []byte(key))} }}}
}

func (p macs) get() *mac { return p.pool.Get().(*mac) }

// put returns a hash to the pool. It clears the buffer, which may contain values, and drops a
// buffer of unusual size.
func (p macs) put(m *mac) {
	clear(m.text)
	if cap(m.text) > maxKeptText {
		m.text = nil
	}
	m.text = m.text[:0]
	p.pool.Put(m)
}

// maxKeptText is more than a request without a value has.
const maxKeptText = 16 << 10

// sum returns the hash of text. The result is valid until put.
func (m *mac) sum() []byte {
	m.hash.Reset()
	m.hash.Write(m.text)
	return m.hash.Sum(m.out[:0])
}
