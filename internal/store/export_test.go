package store

import "crypto/sha256"

// TestTags makes tags under no key, which is enough to tell records apart.
type TestTags struct{}

// Tag binds key and content.
func (TestTags) Tag(_ uint32, key string, content []byte) []byte {
	sum := sha256.Sum256(append([]byte(key+"\x00"), content...))
	return sum[:]
}

// Generation is the first.
func (TestTags) Generation() uint32 { return 0 }

// IsCurrent takes everything.
func (TestTags) IsCurrent([]byte) bool { return true }
