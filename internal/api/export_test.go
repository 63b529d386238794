package api

// Bounds of the numbers of calls without records of their own.
const (
	MaxTallies    = maxTallies
	TallyInterval = tallyInterval
)

// Waiting returns how many notes wait to be written or remember that an instance has left.
func (k *Consumers) Waiting() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.soon.count + k.later.count + k.left.count
}
