package agent

import (
	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/keyringkey"
)

// open says where the last known values are kept; nil when nowhere.
func (l *LastGood) open() *consumer.LastGood {
	if l == nil {
		return nil
	}
	out := &consumer.LastGood{Dir: l.Dir}
	switch {
	case l.Key.File != "":
		out.Key = consumer.KeyFile(l.Key.File)
	case l.Key.Credential != "":
		out.Key = consumer.SystemdCredential(l.Key.Credential)
	default:
		out.Key = keyringkey.New(l.Key.Keyring)
	}
	return out
}
