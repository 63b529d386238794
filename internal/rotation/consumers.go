package rotation

import "time"

// Consumer is who was seen to use a secret.
type Consumer struct {
	Account string `json:"account"`
	Secret  string `json:"secret"`
	// Instance is the name that it has given itself; empty for one that only reads, of which Version is the last that it read.
	Instance    string `json:"instance,omitempty"`
	AccessKeyID string `json:"access_key_id"`
	Principal   string `json:"principal"` // its ARN
	Source      string `json:"source,omitempty"`
	// Version is what it uses for what is new, Oldest the oldest that something open was opened with; empty means Version.
	Version string    `json:"version"`
	Oldest  string    `json:"oldest,omitempty"`
	Seen    time.Time `json:"seen"`
}

// Acknowledged reports whether the consumer itself has said what it uses.
func (c Consumer) Acknowledged() bool { return c.Instance != "" }

// Behind reports whether it uses, or holds, a version other than the current one.
func (c Consumer) Behind(current string) bool {
	return c.Version != "" && c.Version != current || c.Oldest != "" && c.Oldest != current
}
