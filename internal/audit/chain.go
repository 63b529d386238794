package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A line is
//
//	{"seq":1,"time":"…",<members of the record>,"prev":"<64 hex>","hash":"<64 hex>"}
//
// and its hash is taken over prev, a newline, and the line as it stands without the hash member.
const (
	hashKey  = `,"hash":"`
	hashSize = 2 * sha256.Size
	sealSize = len(hashKey) + hashSize + len(`"}`)

	// frameSize is about what a line has around its members.
	frameSize = 3 * hashSize

	// A segment is named for its first record, with enough digits that names sort like numbers.
	segmentExt = ".jsonl"
	seqDigits  = 20

	// maxLine is more than the longest line: fifteen members of maxMember bytes, each byte escaped as six.
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
)

// link is the end of a chain: what the next record follows.
type link struct {
	seq  uint64
	hash string
}

// appendLine appends the record whose members are body, and returns the link it makes.
func appendLine(dst []byte, after link, now time.Time, body []byte) ([]byte, link) {
	dst = slices.Grow(dst, 2*(len(body)+frameSize)) // the line, and room for lineHash
	start := len(dst)
	next := link{seq: after.seq + 1}
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, next.seq, 10)
	dst = append(dst, `,"time":"`...)
	dst = now.UTC().AppendFormat(dst, TimeFormat)
	dst = append(dst, `",`...)
	dst = append(dst, body...)
	dst = append(dst, `,"prev":"`...)
	dst = append(dst, after.hash...)
	dst = append(dst, '"')
	next.hash = lineHash(dst[len(dst):], after.hash, dst[start:])
	dst = append(dst, hashKey...)
	dst = append(dst, next.hash...)
	return append(dst, "\"}\n"...), next
}

// lineHash takes the line up to the hash member, and closes it itself. The text to hash is put together in the free room of
// spare, which may be nil: hashing it whole costs less than part by part.
func lineHash(spare []byte, prev string, body []byte) string {
	text := append(append(spare[:0], prev...), '\n')
	text = append(append(text, body...), '}')
	sum := sha256.Sum256(text)
	var digits [hashSize]byte
	hex.Encode(digits[:], sum[:])
	return string(digits[:])
}

// checkLine decodes line, which has no newline any more, and checks it against its own hash. Whether it follows the
// line before is for the caller to see.
func checkLine(line []byte) (Record, error) {
	if len(line) <= sealSize {
		return Record{}, errNoHash
	}
	body, seal := line[:len(line)-sealSize], line[len(line)-sealSize:]
	hash, ok := bytes.CutPrefix(seal, []byte(hashKey))
	hash, ok2 := bytes.CutSuffix(hash, []byte(`"}`))
	if !ok || !ok2 || !isHash(hash) {
		return Record{}, errNoHash
	}
	var r Record
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || d.InputOffset() != int64(len(line)) {
		return Record{}, errJSON // err quotes the line
	}
	if r.Hash != string(hash) || !isHash([]byte(r.Prev)) || r.Seq == 0 || r.Time.IsZero() || r.check() != nil {
		return Record{}, errJSON
	}
	if lineHash(nil, r.Prev, body) != r.Hash {
		return Record{}, errHash
	}
	return r, nil
}

func isHash(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(b) == hashSize
}

// follow checks that r comes next after l, and returns the link r makes. After the zero link anything may come: that
// is how a trail whose older segments are kept elsewhere begins.
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
	s, ok := strings.CutSuffix(name, segmentExt)
	if !ok || len(s) != seqDigits {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
