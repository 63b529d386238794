package envelope

import (
	"crypto/cipher"
	"sync"
)

// maxDataKeys is how many opened data keys a generation holds; two are kept, about 4 MB.
const maxDataKeys = 1024

// dataKeys remembers data keys that were opened lately, ready to use. Values are not remembered. A data key is found by its
// wrapped form together with all that is bound into it, so it opens for nothing else than before.
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

func (d *dataKeys) put(id []byte, aead cipher.AEAD) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.young == nil || len(d.young) >= maxDataKeys {
		d.old, d.young = d.young, make(map[string]cipher.AEAD)
	}
	d.young[string(id)] = aead
}
