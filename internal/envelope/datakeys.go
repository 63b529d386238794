package envelope

import (
	"crypto/cipher"
	"math/rand/v2"
	"sync"
)

// maxDataKeys is how many opened data keys a generation holds. Two generations are kept, about 4
// MB. Once a generation has been full, one in admitOne of the opened keys is added: a key that is
// read often is soon among them, and reads spread over more keys than fit do not evict each other
// at every turn.
const (
	maxDataKeys = 1024
	admitOne    = 8
)

// dataKeys caches recently opened data keys. It holds no values. A data key is found by its wrapped
// form together with everything that is bound into it, so it opens exactly what it opened before.
type dataKeys struct {
	mu    sync.RWMutex
	young map[string]cipher.AEAD // guarded by mu
	old   map[string]cipher.AEAD // guarded by mu; the young of before, dropped when the next are full
}

func (d *dataKeys) get(id []byte) (cipher.AEAD, bool) {
	d.mu.RLock()
	aead, ok := d.young[string(id)]
	if ok {
		d.mu.RUnlock()
		return aead, true
	}
	aead, ok = d.old[string(id)]
	d.mu.RUnlock()
	if ok {
		d.put(id, aead) // it is in use, so it stays
	}
	return aead, ok
}

// add remembers a key that was opened, if it is its turn.
func (d *dataKeys) add(id []byte, aead cipher.AEAD) {
	d.mu.RLock()
	full := d.old != nil
	d.mu.RUnlock()
	if !full || rand.N(admitOne) == 0 {
		d.put(id, aead)
	}
}

func (d *dataKeys) put(id []byte, aead cipher.AEAD) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.young == nil || len(d.young) >= maxDataKeys {
		d.old, d.young = d.young, make(map[string]cipher.AEAD)
	}
	d.young[string(id)] = aead
}
