package audit

import (
	"bytes"
	"testing"
)

func FuzzCheckLine(f *testing.F) {
	good, end := appendLine(nil, link{hash: genesis}, testTime, []byte(`"phase":"call","operation":"X"`), nil)
	second, _ := appendLine(nil, end, testTime, []byte(`"phase":"intent","operation":"Y","decision":"deny"`), nil)
	f.Add(bytes.TrimSpace(good))
	f.Add(bytes.TrimSpace(second))
	f.Add([]byte(`{"seq":1,"hash":"` + genesis + `"}`))
	f.Add([]byte(hashKey + genesis + `"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := checkLine(line)
		if err != nil {
			return
		}
		if len(r.Hash) != hashSize || len(r.Prev) != hashSize || r.Seq == 0 {
			t.Errorf("accepted a record without seq, prev or hash")
		}
		if r.Hash != lineHash(nil, r.Prev, line[:len(line)-sealSize]) {
			t.Errorf("accepted a line that does not match its hash")
		}
	})
}

func TestSegmentName(t *testing.T) {
	t.Parallel()
	for seq, name := range map[uint64]string{
		1: "00000000000000000001.jsonl", 42: "00000000000000000042.jsonl", ^uint64(0): "18446744073709551615.jsonl",
	} {
		if got := segmentName(seq); got != name || segmentSeq(got) != seq {
			t.Errorf("segmentName(%d) = %q, read back as %d", seq, got, segmentSeq(got))
		}
	}
	for _, name := range []string{"", "lock", "1.jsonl", "00000000000000000001.json", "0000000000000000000x.jsonl",
		"99999999999999999999.jsonl", "-0000000000000000001.jsonl"} {
		if seq := segmentSeq(name); seq != 0 {
			t.Errorf("segmentSeq(%q) = %d, want 0", name, seq)
		}
	}
}
