// Package users holds the rules of users, groups and policies: names, limits, what is attached to
// whom, and what may be deleted. It is pure: a value in, a value out, the receiver untouched; time
// and randomness are arguments. It does not read policy documents; package policy does.
package users

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/ram"
)

// Limits. The cloud has the same limits for versions and access keys; the others bound what one
// decision has to read.
const (
	MaxKeys           = 2
	MaxVersions       = 5
	MaxSystemPolicies = 20 // attached to one user or group
	MaxCustomPolicies = 10 // attached to one user or group
	MaxGroupsOfUser   = 10

	// These bound what one list has to read. They are checked against a count that a change at the
	// same moment may raise.
	MaxUsers    = 5000
	MaxGroups   = 1000
	MaxPolicies = 1500
)

// Types of a policy.
const (
	System = ram.TypeSystem
	Custom = ram.TypeCustom
)

// Codes of an invalid parameter; package api replaces the asterisk with the parameter's name. All
// other codes are constants of package ram.
const (
	CodeChars  = "InvalidParameter.*.InvalidChars"
	CodeLength = "InvalidParameter.*.Length"
	CodeFormat = "InvalidParameter.*.Format"
)

// Attachment is a policy that is attached to a user or a group.
type Attachment struct {
	Type string    `json:"type"`
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

// attachments are the policies of one user or group, in the order in which they were attached.
type attachments []Attachment

func (a attachments) find(kind, name string) int {
	return slices.IndexFunc(a, func(x Attachment) bool { return x.Type == kind && x.Name == name })
}

// add attaches a policy; the codes are for one that is attached already, and for one too many.
func (a attachments) add(kind, name string, now time.Time, exists, limit string) (attachments, error) {
	if a.find(kind, name) >= 0 {
		return a, fault.Coded(fault.Exists, exists, "")
	}
	most := MaxCustomPolicies
	if kind == System {
		most = MaxSystemPolicies
	}
	n := 0
	for _, x := range a {
		if x.Type == kind {
			n++
		}
	}
	if n >= most {
		return a, fault.Coded(fault.LimitExceeded, limit, "At most %d %s policies.", most, strings.ToLower(kind))
	}
	return append(slices.Clone(a), Attachment{Type: kind, Name: name, At: now}), nil
}

func (a attachments) remove(kind, name, missing string) (attachments, error) {
	i := a.find(kind, name)
	if i < 0 {
		return a, fault.Coded(fault.NotFound, missing, "")
	}
	return slices.Delete(slices.Clone(a), i, i+1), nil
}

// Names of users may hold letters, digits, '.', '_' and '-'; names of groups and policies letters,
// digits and '-'.
const (
	userMarks    = "._-"
	displayMarks = "@._- "
	nameMarks    = "-"
)

// CheckUserName checks the name of a user that parameter gives.
func CheckUserName(parameter, name string) error { return checkName(parameter, name, userMarks, 64) }

// CheckGroupName checks the name of a group.
func CheckGroupName(parameter, name string) error { return checkName(parameter, name, nameMarks, 64) }

// CheckPolicyName checks the name of a policy.
func CheckPolicyName(parameter, name string) error {
	return checkName(parameter, name, nameMarks, 128)
}

// CheckPolicyType checks the type of a policy.
func CheckPolicyType(kind string) error {
	switch kind {
	case "":
		return fault.Required("PolicyType")
	case System, Custom:
		return nil
	}
	return fault.Coded(fault.Invalid, ram.CodePolicyType, "Use System or Custom.")
}

func checkName(parameter, name, marks string, most int) error {
	switch {
	case name == "":
		return fault.Required(parameter)
	case len(name) > most:
		return invalid(CodeLength, parameter, "A name has 1 to "+strconv.Itoa(most)+" characters.")
	}
	for i := range len(name) {
		c := name[i]
		if ('a' > c || c > 'z') && ('A' > c || c > 'Z') && ('0' > c || c > '9') && strings.IndexByte(marks, c) < 0 {
			return invalid(CodeChars, parameter, "A name has letters, digits and "+marks)
		}
	}
	return nil
}

func checkText(parameter, text string, most int) error {
	if utf8.RuneCountInString(text) > most {
		return invalid(CodeLength, parameter, "")
	}
	return nil
}

// invalid returns the error for a parameter that breaks a rule; message may be empty.
func invalid(code, parameter, message string) error {
	return &fault.Error{Kind: fault.Invalid, Code: code, Param: parameter, Msg: message}
}

const (
	digits  = "0123456789"
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" + digits
)

// NewID makes the ID of a user or a group: 18 digits, as the cloud's.
func NewID(random io.Reader) (string, error) {
	id, err := text(random, digits, 17)
	return "2" + id, err
}

// NewKey makes the ID and the secret of an access key, of the form that the administrator's has.
func NewKey(random io.Reader) (id, secret string, err error) {
	if id, err = text(random, letters, 22); err != nil {
		return "", "", err
	}
	secret, err = text(random, letters, 40)
	return "KT" + id, secret, err
}

// text draws n characters, each as likely as any other: bytes past the last whole multiple are
// drawn again.
func text(random io.Reader, alphabet string, n int) (string, error) {
	out := make([]byte, 0, n)
	limit := 256 - 256%len(alphabet)
	buf := make([]byte, 64)
	for len(out) < n {
		if _, err := io.ReadFull(random, buf); err != nil {
			return "", err
		}
		for _, b := range buf {
			if int(b) < limit && len(out) < n {
				out = append(out, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	return string(out), nil
}
