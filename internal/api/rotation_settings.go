package api

import (
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/secret"
	"github.com/keyturn/keyturn/kms"
)

// rotationSetting is a setting of ConfigureRotation that is kept unless a call names it.
type rotationSetting struct {
	// param is its parameter, and its name in Reset; flag is the flag of keyturn rotation configure,
	// without --.
	param, flag string
	// text returns its value as a caller may give it; empty means the default.
	text func(s *secret.RotationSettings) string
	// list returns the values of a parameter that may be repeated; nil for another one.
	list func(s *secret.RotationSettings) []string
	copy func(to, from *secret.RotationSettings)
	// add adds a kept value to the one that a call names; nil for a setting that it replaces.
	add func(to, from *secret.RotationSettings)
	// ofTarget are settings that mean something at one registration of a target only. Another target,
	// or another registration of the same name, drops them.
	ofTarget bool
}

func textSetting(param, flag string, ofTarget bool, field func(s *secret.RotationSettings) *string) rotationSetting {
	return rotationSetting{
		param:    param,
		flag:     flag,
		text:     func(s *secret.RotationSettings) string { return *field(s) },
		copy:     func(to, from *secret.RotationSettings) { *field(to) = *field(from) },
		ofTarget: ofTarget,
	}
}

func graceSetting(param, flag string, field func(s *secret.RotationSettings) **time.Duration) rotationSetting {
	return rotationSetting{
		param: param,
		flag:  flag,
		text: func(s *secret.RotationSettings) string {
			if d := *field(s); d != nil {
				return formatDuration(*d)
			}
			return ""
		},
		copy: func(to, from *secret.RotationSettings) { *field(to) = *field(from) },
	}
}

const (
	paramCron    = "Cron"
	paramConsent = "Consent"
)

var rotationSettings = []rotationSetting{
	{
		param:    "Strategy",
		flag:     "strategy",
		text:     func(s *secret.RotationSettings) string { return string(s.Strategy) },
		copy:     func(to, from *secret.RotationSettings) { to.Strategy = from.Strategy },
		ofTarget: true,
	},
	textSetting("AccountName", "account", true, func(s *secret.RotationSettings) *string { return &s.Account }),
	textSetting("CloneAccountName", "clone-account", true,
		func(s *secret.RotationSettings) *string { return &s.CloneAccount }),
	textSetting("AccountMember", "account-member", false,
		func(s *secret.RotationSettings) *string { return &s.AccountMember }),
	textSetting("SecretMember", "secret-member", false,
		func(s *secret.RotationSettings) *string { return &s.SecretMember }),
	textSetting(paramCron, "cron", false, func(s *secret.RotationSettings) *string { return &s.Schedule.Cron }),
	textSetting("TimeZone", "time-zone", false, func(s *secret.RotationSettings) *string { return &s.Schedule.Zone }),
	{
		param: "Window",
		flag:  "window",
		text:  func(s *secret.RotationSettings) string { return s.Schedule.Window.String() },
		copy:  func(to, from *secret.RotationSettings) { to.Schedule.Window = from.Schedule.Window },
	},
	{
		param: "Blackouts",
		flag:  "blackouts",
		text:  func(s *secret.RotationSettings) string { return rotation.FormatBlackouts(s.Schedule.Blackouts) },
		copy:  func(to, from *secret.RotationSettings) { to.Schedule.Blackouts = from.Schedule.Blackouts },
	},
	graceSetting("GracePeriod", "grace", func(s *secret.RotationSettings) **time.Duration { return &s.Grace }),
	graceSetting("GraceLimit", "grace-limit", func(s *secret.RotationSettings) **time.Duration { return &s.GraceLimit }),
	textSetting("Group", "group", false, func(s *secret.RotationSettings) *string { return &s.Group }),
	{
		param: "GroupGap",
		flag:  "group-gap",
		text: func(s *secret.RotationSettings) string {
			if s.Gap == 0 {
				return ""
			}
			return formatDuration(s.Gap)
		},
		copy: func(to, from *secret.RotationSettings) { to.Gap = from.Gap },
	},
	{
		param:    "LoginEndpoint",
		flag:     "login-endpoint",
		text:     func(s *secret.RotationSettings) string { return strings.Join(s.Login.Endpoints, ", ") },
		list:     func(s *secret.RotationSettings) []string { return s.Login.Endpoints },
		copy:     func(to, from *secret.RotationSettings) { to.Login.Endpoints = from.Login.Endpoints },
		ofTarget: true,
	},
	textSetting("LoginDatabase", "login-database", true,
		func(s *secret.RotationSettings) *string { return &s.Login.Database }),
	textSetting("LoginRole", "login-role", true, func(s *secret.RotationSettings) *string { return &s.Login.Role }),
	textSetting("LoginCertificateSecret", "login-certificate-secret", true, func(s *secret.RotationSettings) *string {
		return &s.Login.CertificateSecret
	}),
	{
		param: paramConsent,
		flag:  "consent",
		text:  func(s *secret.RotationSettings) string { return strings.Join(s.Consents, ", ") },
		list:  func(s *secret.RotationSettings) []string { return s.Consents },
		copy:  func(to, from *secret.RotationSettings) { to.Consents = from.Consents },
		// Consents add up: agreeing to one more finding withdraws none.
		add:      func(to, from *secret.RotationSettings) { to.Consents = union(to.Consents, from.Consents) },
		ofTarget: true,
	},
}

// withoutTarget returns settings without those that mean something at one registration of a target
// only.
func withoutTarget(s secret.RotationSettings) secret.RotationSettings {
	for _, r := range rotationSettings {
		if r.ofTarget {
			r.copy(&s, &secret.RotationSettings{})
		}
	}
	return s
}

// askTheSame reports whether a check with either settings asks the target the same questions.
func askTheSame(a, b secret.RotationSettings) bool {
	for _, r := range rotationSettings {
		asked := r.ofTarget && r.param != paramConsent
		if asked && r.text(&a) != r.text(&b) {
			return false
		}
	}
	return a.AccountMember == b.AccountMember && a.SecretMember == b.SecretMember
}

func union(a, b []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}

// configuredSettings returns the settings of a secret after a call: those that it names, the kept
// ones, and the defaults of those that it resets.
func (c *Call) configuredSettings(
	s secret.Secret, in *kms.ConfigureRotationRequest,
) (after secret.RotationSettings, err error) {
	named, err := c.namedSettings(in)
	if err != nil {
		return after, err
	}
	for _, param := range in.Reset {
		if !slices.ContainsFunc(rotationSettings, func(r rotationSetting) bool { return r.param == param }) {
			return after, fault.Parameter("Reset.N", "%q is no setting; use %s.", param, settingNames())
		}
	}
	before := s.Settings()
	after.Target = before.Target
	if named.Target != "" {
		after.Target = named.Target
	}
	elsewhere, err := c.isElsewhere(s, after.Target)
	if err != nil {
		return after, err
	}
	for _, r := range rotationSettings {
		kept := !in.Replace && !slices.Contains(in.Reset, r.param) && !(elsewhere && r.ofTarget)
		if r.param == paramCron && in.RotationInterval != "" {
			kept = false // an interval replaces an expression
		}
		given := r.text(&named) != ""
		switch {
		case given:
			r.copy(&after, &named)
			if kept && r.add != nil {
				r.add(&after, &before)
			}
			if len(after.Consents) > kms.MaxConsents {
				return after, tooManyConsents(s.Name, len(after.Consents))
			}
		case kept:
			r.copy(&after, &before)
		}
	}
	if after.Group == "" && in.GroupGap == "" {
		after.Gap = 0
	}
	if (after.Group == "") != (after.Gap == 0) {
		return after, fault.Parameter("GroupGap", "Group and GroupGap go together.")
	}
	if in.Cron+in.TimeZone+in.Window+in.Blackouts == "" {
		return after, nil // a schedule that is kept stays, also where the server asks for longer intervals now
	}
	return after, c.checkCron(after.Schedule)
}

// isElsewhere reports whether a call configures a secret for another target than before, or for
// another registration of that name.
func (c *Call) isElsewhere(s secret.Secret, targetName string) (bool, error) {
	if !s.Managed() && s.TargetName() != targetName {
		return true, nil
	}
	now, err := registered(c.Snapshot, s.Account, s.TargetName(), s.UserName())
	return now.isAnother(s), err
}

// tooManyConsents refuses a call after which a secret would have that many consents.
func tooManyConsents(name string, count int) error {
	return fault.Parameter("Consent.N", "the secret would have %d consents, and keeps at most %d. keyturn rotation "+
		"configure %s --reset=consent withdraws them; add --consent for each token that keyturn rotation check %s asks for.",
		count, kms.MaxConsents, name, name)
}

func settingNames() string {
	var names []string
	for _, r := range rotationSettings {
		names = append(names, r.param)
	}
	return strings.Join(names, ", ")
}

// scheduleAfter turns automatic rotation on or off. It goes on as it is if a call names no
// schedule.
func (c *Call) scheduleAfter(s secret.Secret, in *kms.ConfigureRotationRequest) (secret.Secret, error) {
	enable := s.Rotation.Enabled && !in.Replace
	switch {
	case in.EnableAutomaticRotation != nil:
		enable = *in.EnableAutomaticRotation
	case in.RotationInterval != "" || in.Cron != "":
		enable = true
	}
	switch {
	case enable && s.Settings().Schedule.Cron != "":
		s.Rotation.Enabled, s.Rotation.Interval = true, 0
		return s, nil
	case enable && in.RotationInterval == "" && s.Rotation.Enabled && s.Rotation.Interval > 0 && !in.Replace:
		return s, nil
	}
	return s.SetRotation(enable, in.RotationInterval, c.Rotation.LeastInterval, c.At)
}

// settingChanges returns the settings that differ: TargetName, RotationInterval, the rows of
// rotationSettings in their order, EnableAutomaticRotation.
func settingChanges(before, after secret.Secret) []kms.RotationSettingChange {
	var list []kms.RotationSettingChange
	add := func(param, a, b string) {
		if a != b {
			list = append(list, kms.RotationSettingChange{Setting: param, Before: a, After: b})
		}
	}
	a, b := before.Settings(), after.Settings()
	add(paramTarget, before.TargetName(), after.TargetName())
	add(paramInterval, intervalText(before), intervalText(after))
	for _, r := range rotationSettings {
		add(r.param, r.text(&a), r.text(&b))
	}
	add("EnableAutomaticRotation", automaticText(before), automaticText(after))
	return list
}

func intervalText(s secret.Secret) string {
	if s.Rotation.Interval == 0 {
		return ""
	}
	return s.Rotation.IntervalText()
}

func automaticText(s secret.Secret) string {
	if s.Rotation.Enabled {
		return "true"
	}
	return "false"
}
