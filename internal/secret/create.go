package secret

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/wire"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
)

// Spec is what a caller says of a new secret, as it came in CreateSecret.
type Spec struct {
	Name, Type, DataType, Description string
	DKMSInstanceID, ExtendedConfig    string
	Policy                            string
	Tags                              []kms.Tag
	EnableRotation                    bool
	RotationInterval                  string
	// LeastInterval is the shortest interval that the server allows; 0 means MinInterval.
	LeastInterval time.Duration
	Data          sensitive.Value
}

// maxInstanceID bounds an opaque identifier that is only stored and returned.
const maxInstanceID = 128

// ramNames is what the names of RAMCredentials secrets begin with; the user's name follows.
const ramNames = "acs/ram/user/"

// named reports whether the service makes the name.
func (spec Spec) named() bool { return spec.Type == kms.TypeRAMCredentials && spec.Name == kms.Auto }

// FinalName returns the name that the secret will have. It is Name itself for a specification that
// Check refuses.
func (spec Spec) FinalName() string {
	if checked, err := spec.Check(); err == nil {
		return checked.Name
	}
	return spec.Name
}

// Check refuses a specification that no secret can be made from, and completes it: the name of a
// RAMCredentials secret is made from its user, ExtendedConfig gets its CustomData. It needs no
// store.
func (spec Spec) Check() (Spec, error) {
	if err := checkTags(spec.Tags); err != nil {
		return spec, err
	}
	if len(spec.DKMSInstanceID) > maxInstanceID {
		return spec, fault.Parameter("DKMSInstanceId", "use at most %d characters.", maxInstanceID)
	}
	if spec.Type == kms.TypeGeneric {
		spec.EnableRotation, spec.RotationInterval = false, ""
		if spec.ExtendedConfig != "" {
			return spec, fault.Parameter("ExtendedConfig", "it is for managed types; a Generic secret has none.")
		}
		return spec, checkName(spec)
	}
	if spec.DataType != kms.DataText {
		return spec, fault.Parameter("SecretDataType", "a secret of type %s is text.", spec.Type)
	}
	if spec.EnableRotation {
		if spec.RotationInterval == "" {
			return spec, fault.Required("RotationInterval")
		}
		if _, err := ParseInterval(spec.RotationInterval, spec.LeastInterval); err != nil {
			return spec, err
		}
	}
	config, members, err := checkExtendedConfig(spec)
	if err != nil {
		return spec, err
	}
	spec.ExtendedConfig = config
	if spec.named() {
		spec.Name = ramNames + members["UserName"]
		if !wire.IsName(spec.Name) || len(spec.Name) > 192 {
			return spec, fault.Parameter("ExtendedConfig", "UserName must make a secret name: letters, digits and _ / + = . @ -")
		}
	} else if err := checkName(spec); err != nil {
		return spec, err
	}
	return spec, checkData(spec, members["SecretSubType"])
}

func checkName(spec Spec) error {
	reserved := strings.HasPrefix(spec.Name, "acs/")
	switch {
	case spec.Name == kms.Auto:
		return fault.Parameter("SecretName", "$Auto is for RAMCredentials secrets only.")
	case spec.Type == kms.TypeRAMCredentials:
		return fault.Parameter("SecretName", "use $Auto: the name of a RAMCredentials secret is made from its UserName.")
	case spec.Type == kms.TypeECS && !strings.HasPrefix(spec.Name, "acs/ecs/"):
		return fault.Parameter("SecretName", "the name of an ECS secret begins with acs/ecs/.")
	case reserved && (spec.Type == kms.TypeGeneric || spec.Type == kms.TypeRds || spec.Type == kms.TypeRedis):
		return fault.Parameter("SecretName", "names that begin with acs/ are reserved.")
	}
	return nil
}

// New makes a secret of a checked specification, with v as its first version, labelled Current.
func New(account string, spec Spec, v Version, now time.Time) (Secret, error) {
	s := Secret{
		Account: account, Name: spec.Name, Type: spec.Type, Description: spec.Description,
		DKMSInstanceID: spec.DKMSInstanceID, ExtendedConfig: spec.ExtendedConfig, Policy: spec.Policy,
		CreatedAt: now, UpdatedAt: now,
		Versions: map[string]Version{}, Stages: map[Stage]string{Current: v.ID},
	}
	for _, t := range spec.Tags {
		if s.Tags == nil {
			s.Tags = map[string]string{}
		}
		s.Tags[t.TagKey] = t.TagValue
	}
	s.add(v, now)
	var err error
	s.Rotation, err = s.policy(spec.EnableRotation, spec.RotationInterval, spec.LeastInterval, now)
	return s, err
}

// UpdateMetadata changes the description, unless it is nil, and CustomData, unless it is nil.
func (s Secret) UpdateMetadata(description *string, custom map[string]string, now time.Time) (Secret, error) {
	if err := s.Usable(); err != nil {
		return s, err
	}
	if description != nil {
		s.Description = *description
	}
	if custom == nil {
		return s.touched(now), nil
	}
	if !s.Managed() {
		return s, fault.Parameter("ExtendedConfig.CustomData", "it is for managed types; a Generic secret has none.")
	}
	if len(custom) > maxCustomData {
		return s, fault.Parameter("ExtendedConfig.CustomData", "use at most %d pairs.", maxCustomData)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(s.ExtendedConfig), &members); err != nil {
		return s, fault.Wrap(fault.Internal, err, "secret %q: stored extended config", s.Name)
	}
	members["CustomData"] = compact(custom)
	config := string(compact(members))
	if utf8.RuneCountInString(config) > maxExtendedConfig {
		return s, fault.Parameter("ExtendedConfig.CustomData",
			"ExtendedConfig would exceed %d characters.", maxExtendedConfig)
	}
	s.ExtendedConfig = config
	return s.touched(now), nil
}
