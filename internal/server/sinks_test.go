package server

import (
	"slices"
	"strings"
	"testing"
)

// TestEverySinkKind verifies what holds for every kind of audit sink: it is configured by its
// setting, has the name of its kind, uses TLS unless it is on loopback, and no target may reach its
// address.
func TestEverySinkKind(t *testing.T) {
	t.Parallel()
	for _, k := range sinkKinds {
		open := func(destination string) (*Settings, error) {
			s := NewSettings()
			if err := s.Load(map[string][]string{k.setting: {destination}}, nil, nil); err != nil {
				t.Fatal(err)
			}
			var err error
			s.AuditSinks, err = s.openSinks()
			return s, err
		}
		for _, destination := range []string{k.secure + "://192.0.2.7:4711", k.plain + "://127.0.0.1:4711"} {
			s, err := open(destination)
			if err != nil || len(s.AuditSinks) != 1 || s.AuditSinks[0].Name() != k.name {
				t.Errorf("%s %s: the sinks %v, %v, want one named %s", k.setting, destination, s.AuditSinks, err, k.name)
				continue
			}
			if address := destination[strings.Index(destination, "//")+2:]; !slices.Contains(s.Services(), address) {
				t.Errorf("%s: targets may reach the sink at %s", k.name, address)
			}
		}
		for _, destination := range []string{
			k.plain + "://192.0.2.7:4711", "ftp://192.0.2.7:4711", "192.0.2.7:4711", k.secure + "://", "no destination",
		} {
			if _, err := open(destination); err == nil || !strings.HasPrefix(err.Error(), k.setting+" must be ") {
				t.Errorf("%s %s: %v, want an error that says what it must be", k.setting, destination, err)
			}
		}
		for _, destination := range []string{k.secure + "://user:hidden@192.0.2.7:x",
			"ftp://user:hidden@host/?token=hidden"} {
			if _, err := open(destination); err == nil || strings.Contains(err.Error(), "hidden") {
				t.Errorf("%s: the error shows a password or accepts it: %v", k.setting, err)
			}
		}
	}
}
