package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/keyturn/keyturn/kms"
)

// rotationSetting is a setting of rotation configure.
type rotationSetting struct {
	flag  string // without --
	param string // of ConfigureRotation
	label string
	of    func(r *kms.DescribeRotationResponse) string
	// duration says that the API answers it in seconds.
	duration bool
	// always says that --reset does not take it.
	always bool
	// unset is shown when the setting is empty; empty means none.
	unset string
}

// showSet shows a value that may not be set.
func (s *rotationSetting) showSet(value string) string {
	return cmp.Or(s.show(value), s.unset, "none")
}

func (s *rotationSetting) show(value string) string {
	if s.duration {
		return span(value)
	}
	return value
}

var rotationSettings = []rotationSetting{
	{flag: "target", param: "TargetName", label: "target", always: true,
		of: func(r *kms.DescribeRotationResponse) string { return r.TargetName }},
	{flag: "strategy", param: "Strategy", label: "strategy", unset: "default",
		of: func(r *kms.DescribeRotationResponse) string { return r.ConfiguredStrategy }},
	{flag: "account", param: "AccountName", label: "account",
		of: func(r *kms.DescribeRotationResponse) string { return r.AccountName }},
	{flag: "clone-account", param: "CloneAccountName", label: "clone account",
		of: func(r *kms.DescribeRotationResponse) string { return r.CloneAccountName }},
	{flag: "account-member", param: "AccountMember", label: "account member", unset: "default",
		of: func(r *kms.DescribeRotationResponse) string { return r.AccountMember }},
	{flag: "secret-member", param: "SecretMember", label: "secret member", unset: "default",
		of: func(r *kms.DescribeRotationResponse) string { return r.SecretMember }},
	{flag: "interval", param: "RotationInterval", label: "interval", always: true,
		duration: true, of: func(r *kms.DescribeRotationResponse) string { return r.RotationInterval }},
	{flag: "cron", param: "Cron", label: "cron",
		of: func(r *kms.DescribeRotationResponse) string { return r.Cron }},
	{flag: "time-zone", param: "TimeZone", label: "time zone", unset: "UTC",
		of: func(r *kms.DescribeRotationResponse) string { return r.TimeZone }},
	{flag: "window", param: "Window", label: "window",
		of: func(r *kms.DescribeRotationResponse) string { return r.Window }},
	{flag: "blackouts", param: "Blackouts", label: "blackouts",
		of: func(r *kms.DescribeRotationResponse) string { return r.Blackouts }},
	{flag: "grace", param: "GracePeriod", label: "grace period", unset: "default",
		duration: true, of: func(r *kms.DescribeRotationResponse) string { return r.GracePeriod }},
	{flag: "grace-limit", param: "GraceLimit", label: "grace limit", unset: "default",
		duration: true, of: func(r *kms.DescribeRotationResponse) string { return r.GraceLimit }},
	{flag: "group", param: "Group", label: "group",
		of: func(r *kms.DescribeRotationResponse) string { return r.Group }},
	{flag: "group-gap", param: "GroupGap", label: "group gap",
		duration: true, of: func(r *kms.DescribeRotationResponse) string { return r.GroupGap }},
	{flag: "login-endpoint", param: "LoginEndpoint", label: "login endpoints", unset: "all",
		of: func(r *kms.DescribeRotationResponse) string { return strings.Join(r.LoginEndpoints, ", ") }},
	{flag: "login-database", param: "LoginDatabase", label: "login database", unset: "default",
		of: func(r *kms.DescribeRotationResponse) string { return r.LoginDatabase }},
	{flag: "login-role", param: "LoginRole", label: "login role",
		of: func(r *kms.DescribeRotationResponse) string { return r.LoginRole }},
	{flag: "login-certificate-secret", param: "LoginCertificateSecret", label: "login certificate",
		of: func(r *kms.DescribeRotationResponse) string { return r.LoginCertificateSecret }},
	{flag: "consent", param: "Consent", label: "consents",
		of: func(r *kms.DescribeRotationResponse) string { return strings.Join(r.Consents, ", ") }},
}

// resetParam returns the parameter that --reset names by its flag.
func resetParam(flag string) (string, error) {
	var flags []string
	for _, s := range rotationSettings {
		if s.always {
			continue
		}
		if s.flag == flag {
			return s.param, nil
		}
		flags = append(flags, s.flag)
	}
	hint := ""
	if flag == "interval" {
		hint = " (--manual plans no rotations)"
	}
	return "", fmt.Errorf("--reset %s: no such setting%s; use one of: %s", flag, hint, strings.Join(flags, ", "))
}

// printSettings prints the settings that hold after a call of configure, and what changed ones were
// before.
func printSettings(w io.Writer, r *kms.DescribeRotationResponse) error {
	changes := map[string]kms.RotationSettingChange{}
	for _, c := range r.Changes {
		changes[c.Setting] = c
	}
	to, attached := changes["TargetName"]
	first := attached && to.Before == "" // nothing was configured before
	t := newTable()
	for _, s := range rotationSettings {
		value := s.of(r)
		if c, changed := changes[s.param]; changed && !first {
			t.row("  "+s.label, s.showSet(value), "(was "+s.showSet(c.Before)+")")
		} else if value != "" {
			t.row("  "+s.label, s.show(value))
		}
	}
	return t.write(w)
}
