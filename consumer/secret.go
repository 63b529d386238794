package consumer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// maxTTL is the longest interval that the member ttl of a value may ask for.
const maxTTL = 24 * time.Hour

// The sources of a value, [Secret.Source].
const (
	// SourceServer means that the server sent the value to this process.
	SourceServer = "server"
	// SourceDisk means that the value is the last known good one, which an earlier process wrote.
	SourceDisk = "disk"
)

// Secret is one version of a secret as it was read. Goroutines share it, so its fields must not be
// changed.
type Secret struct {
	// Name is the name or ARN that the caller used.
	Name string
	// VersionID names the version. The value of a version never changes.
	VersionID string
	// Stages are the labels that the version had when it was read.
	Stages []string
	// Type is the type of the secret, such as [kms.TypeGeneric]. DataType is [kms.DataText] or
	// [kms.DataBinary].
	Type, DataType string
	// NextRotation is when the next rotation of the secret is due; zero if unknown.
	NextRotation time.Time
	// FetchedAt is when the read of this value started.
	FetchedAt time.Time
	// Source is [SourceServer] or [SourceDisk].
	Source string

	answer  kms.GetSecretValueResponse
	members func() (map[string]json.RawMessage, error)
}

func newSecret(name string, answer *kms.GetSecretValueResponse, fetched time.Time, source string) *Secret {
	s := &Secret{
		Name:         name,
		VersionID:    answer.VersionID,
		Stages:       answer.VersionStages,
		Type:         answer.SecretType,
		DataType:     answer.SecretDataType,
		NextRotation: answer.NextRotationDate,
		FetchedAt:    fetched,
		Source:       source,
		answer:       *answer,
	}
	s.members = sync.OnceValues(s.parse)
	return s
}

// Value returns the whole value.
func (s *Secret) Value() sensitive.Value { return s.answer.SecretData }

// Raw returns the whole answer of the server.
func (s *Secret) Raw() *kms.GetSecretValueResponse {
	answer := s.answer
	answer.VersionStages = slices.Clone(answer.VersionStages)
	return &answer
}

// sameAs reports whether two answers are equal in everything that an application uses.
func (s *Secret) sameAs(o *Secret) bool {
	return s.VersionID == o.VersionID &&
		s.Value().Equal(o.Value()) &&
		slices.Equal(s.Stages, o.Stages) &&
		s.NextRotation.Equal(o.NextRotation) &&
		s.answer.LastRotationDate.Equal(o.answer.LastRotationDate) &&
		s.answer.ExtendedConfig == o.answer.ExtendedConfig
}

// parse returns the members of a JSON object. It replaces the errors of package json, because those
// quote their input.
func (s *Secret) parse() (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s.Value().Reveal()), &members); err != nil || members == nil {
		return nil, fmt.Errorf("consumer: the value of secret %q, version %s, is not a JSON object", s.Name, s.VersionID)
	}
	return members, nil
}

// Member returns one member of a value that is a JSON object: a string decoded, anything else as
// JSON text.
func (s *Secret) Member(name string) (sensitive.Value, error) {
	members, err := s.members()
	if err != nil {
		return sensitive.Value{}, err
	}
	raw, ok := members[name]
	if !ok {
		return sensitive.Value{}, fmt.Errorf("consumer: the value of secret %q, version %s, has no member %q",
			s.Name, s.VersionID, name)
	}
	var text string
	if raw[0] != '"' || json.Unmarshal(raw, &text) != nil {
		return sensitive.New(string(raw)), nil
	}
	return sensitive.New(text), nil
}

// Decode decodes a value that is JSON into the variable that into points to, as [json.Unmarshal]
// does. Its errors quote nothing of the value.
func (s *Secret) Decode(into any) error {
	err := json.Unmarshal([]byte(s.Value().Reveal()), into)
	var kind *json.UnmarshalTypeError
	var target *json.InvalidUnmarshalError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &target):
		return fmt.Errorf("consumer: secret %q: %w", s.Name, target)
	case errors.As(err, &kind) && kind.Type != nil:
		return fmt.Errorf("consumer: the value of secret %q, version %s, does not fit: member %q is not a %s",
			s.Name, s.VersionID, kind.Field, kind.Type)
	}
	return fmt.Errorf("consumer: the value of secret %q, version %s, is not JSON of the wanted form", s.Name, s.VersionID)
}

// ttl returns the interval that the value sets for itself: the member ttl of a JSON object, in
// milliseconds. It returns 0 without one.
func (s *Secret) ttl() time.Duration {
	members, err := s.members()
	if err != nil {
		return 0
	}
	var milliseconds float64
	if raw, ok := members["ttl"]; !ok || json.Unmarshal(raw, &milliseconds) != nil || milliseconds <= 0 {
		return 0
	}
	return max(minInterval, time.Duration(min(milliseconds, float64(maxTTL/time.Millisecond)))*time.Millisecond)
}
