package audit

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A line of format 2 is
//
//	{"v":2,"seq":1,"time":"…",<members of the record>,"prev":"<64 hex>","mac":"<32 hex>","hash":"<64 hex>"}
//
// Its hash is taken over prev, a newline, and the line as it stands without the hash member. The
// MAC, which a trail without a key does not have, is taken over prev, a newline, and what precedes
// the MAC. Format 1 has neither "v" nor "mac". Every later format keeps "v" first, the members seq,
// time, prev, mac and hash, and the two rules above, so that the chain can be verified by a release
// that does not know the other members.
const (
	format = 2

	hashKey  = `,"hash":"`
	hashSize = 2 * sha256.Size
	sealSize = len(hashKey) + hashSize + len(`"}`)

	macKey    = `,"mac":"`
	macSize   = 32 // hex digits: HMAC-SHA256 cut to 128 bits
	macMember = len(macKey) + macSize + len(`"`)

	// frameSize is about what a line has around its members.
	frameSize = 4 * hashSize

	// A segment is named for its first record, with enough digits that names sort like numbers.
	segmentExt = ".jsonl"
	seqDigits  = 20

	// maxLine is more than the longest line: maxMember bytes for each of seventeen members and
	// MaxDetails for the details, each byte escaped as six.
	maxLine = 256 << 10
)

var genesis = strings.Repeat("0", hashSize)

var (
	errNoHash      = errors.New("malformed: the line does not end in a hash")
	errHash        = errors.New("the hash differs: the line was changed")
	errJSON        = errors.New("malformed: the line is not a record")
	errChain       = errors.New("the chain is broken: prev is not the hash of the record before")
	errUnfinished  = errors.New("the last line is unfinished")
	errLineTooLong = errors.New("malformed: the line is longer than any record")
	errFirst       = errors.New("the chain is broken: the first record of a trail follows another")
	errNotKeyed    = errors.New("the record has no MAC, and records before it have: it was not written by the server")
	errMAC         = errors.New("the MAC differs: the record was not written under this trail's key")
)

// Key is the secret under which the records of one trail are authenticated.
type Key struct{ secret []byte }

// NewKey returns the key made of at least 32 secret bytes.
func NewKey(secret []byte) *Key { return &Key{secret: bytes.Clone(secret)} }

// macer computes MACs. It belongs to one goroutine. The nil macer is of a trail without a key.
type macer struct {
	h    hash.Hash
	text []byte
	sum  [sha256.Size]byte
}

func (k *Key) macer() *macer {
	if k == nil {
		return nil
	}
	return &macer{h: hmac.New(sha256.New, k.secret)}
}

// append appends the MAC of a line that is body so far, in hex.
func (m *macer) append(dst []byte, prev string, body []byte) []byte {
	m.text = append(append(append(m.text[:0], prev...), '\n'), body...)
	m.h.Reset()
	m.h.Write(m.text)
	return hex.AppendEncode(dst, m.h.Sum(m.sum[:0])[:macSize/2])
}

// check verifies the MAC of a line that checkLine has accepted as r.
func (m *macer) check(line []byte, r Record) error {
	body := line[:len(line)-sealSize-macMember]
	if want := m.append(nil, r.Prev, body); !hmac.Equal(want, []byte(r.MAC)) {
		return errMAC
	}
	return nil
}

// link is the end of a chain: what the next record follows.
type link struct {
	seq  uint64
	hash string
}

// appendLine appends the record whose members are body, and returns the link it makes.
func appendLine(dst []byte, after link, now time.Time, body []byte, key *macer) ([]byte, link) {
	dst = slices.Grow(dst, 2*(len(body)+frameSize)) // the line, and room for lineHash
	start := len(dst)
	next := link{seq: after.seq + 1}
	dst = append(dst, `{"v":`...)
	dst = strconv.AppendUint(dst, format, 10)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, next.seq, 10)
	dst = append(dst, `,"time":"`...)
	dst = now.UTC().AppendFormat(dst, TimeFormat)
	dst = append(dst, `",`...)
	dst = append(dst, body...)
	dst = append(dst, `,"prev":"`...)
	dst = append(dst, after.hash...)
	dst = append(dst, '"')
	if key != nil {
		n := len(dst)
		dst = append(dst, macKey...)
		dst = append(key.append(dst, after.hash, dst[start:n]), '"')
	}
	next.hash = lineHash(dst[len(dst):], after.hash, dst[start:])
	dst = append(dst, hashKey...)
	dst = append(dst, next.hash...)
	return append(dst, "\"}\n"...), next
}

// lineHash takes the line up to the hash member, and closes it itself. The text to hash is put
// together in the free room of spare, which may be nil: hashing it whole costs less than part by
// part.
func lineHash(spare []byte, prev string, body []byte) string {
	text := append(append(spare[:0], prev...), '\n')
	text = append(append(text, body...), '}')
	sum := sha256.Sum256(text)
	var digits [hashSize]byte
	hex.Encode(digits[:], sum[:])
	return string(digits[:])
}

// checkLine decodes line, whose newline the caller has removed, and checks it against its own hash.
// Whether it follows the line before, and whether its MAC is right, is for the caller to see. Of a
// line of a newer format only the frame is decoded: V, Seq, Time, Prev, MAC and Hash.
func checkLine(line []byte) (Record, error) {
	if len(line) <= sealSize {
		return Record{}, errNoHash
	}
	body, seal := line[:len(line)-sealSize], line[len(line)-sealSize:]
	sum, ok := bytes.CutPrefix(seal, []byte(hashKey))
	sum, ok2 := bytes.CutSuffix(sum, []byte(`"}`))
	if !ok || !ok2 || !isHex(sum, hashSize) {
		return Record{}, errNoHash
	}
	r, err := decodeLine(line)
	if err != nil {
		return Record{}, err
	}
	if r.Hash != string(sum) || !isHex([]byte(r.Prev), hashSize) || r.Seq == 0 || r.Time.IsZero() || !macAtEnd(body, r) {
		return Record{}, errJSON
	}
	if lineHash(nil, r.Prev, body) != r.Hash {
		return Record{}, errHash
	}
	return r, nil
}

// frame is what every format has.
type frame struct {
	V    int       `json:"v"`
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Prev string    `json:"prev"`
	MAC  string    `json:"mac"`
	Hash string    `json:"hash"`
}

func decodeLine(line []byte) (Record, error) {
	if v := newerFormat(line); v != 0 {
		var f frame
		if json.Unmarshal(line, &f) != nil || f.V != v {
			return Record{}, fmt.Errorf("written by a newer release (format %d), and not readable by this one", v)
		}
		return Record{V: f.V, Seq: f.Seq, Time: f.Time, Prev: f.Prev, MAC: f.MAC, Hash: f.Hash}, nil
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || d.InputOffset() != int64(len(line)) {
		return Record{}, errJSON // err quotes the line
	}
	if r.V != 0 && r.V != format || r.V == 0 && (r.MAC != "" || len(r.Details) > 0) || r.check() != nil {
		return Record{}, errJSON
	}
	return r, nil
}

// newerFormat returns the format of a line that a newer release has written, else 0.
func newerFormat(line []byte) int {
	digits, ok := bytes.CutPrefix(line, []byte(`{"v":`))
	n := bytes.IndexByte(digits, ',')
	if !ok || n < 1 || n > 6 {
		return 0
	}
	v, err := strconv.ParseUint(string(digits[:n]), 10, 32)
	if err != nil || v <= format {
		return 0
	}
	return int(v)
}

// macAtEnd reports whether the MAC of r, if it has one, is the last member of body.
func macAtEnd(body []byte, r Record) bool {
	if r.MAC == "" {
		return true
	}
	return isHex([]byte(r.MAC), macSize) && bytes.HasSuffix(body, []byte(macKey+r.MAC+`"`))
}

func isHex(b []byte, size int) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(b) == size
}

// follow checks that r comes next after l, and returns the link r makes. After the zero link
// anything may come: that is how a trail whose older segments are kept elsewhere begins.
func (l link) follow(r Record) (link, error) {
	switch {
	case r.Seq == 1 && r.Prev != genesis:
		return l, errFirst
	case l.hash == "":
	case r.Prev != l.hash:
		return l, errChain
	case r.Seq != l.seq+1:
		return l, errJSON
	}
	return link{seq: r.Seq, hash: r.Hash}, nil
}

func segmentName(seq uint64) string {
	s := strconv.FormatUint(seq, 10)
	return strings.Repeat("0", seqDigits-len(s)) + s + segmentExt
}

// segmentSeq returns the sequence number in a segment's file name; 0 when it is no such name.
func segmentSeq(name string) uint64 {
	s, ok := strings.CutSuffix(strings.TrimSuffix(name, ".gz"), segmentExt)
	if !ok || len(s) != seqDigits {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
