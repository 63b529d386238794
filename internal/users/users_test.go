package users

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/ram"
)

var (
	day1 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	day2 = day1.AddDate(0, 0, 1)
)

// code is the code of an error: its own, with the parameter in it, or that of its kind.
func code(err error) string {
	var e *fault.Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		return err.Error()
	case e.Code == "":
		return fmt.Sprintf("kind %d %s", e.Kind, e.Param)
	}
	return strings.Replace(e.Code, "*", e.Param, 1)
}

func TestNames(t *testing.T) {
	t.Parallel()
	missing := fmt.Sprintf("kind %d X", fault.Missing)
	for _, tt := range []struct {
		name              string
		user, group, polc string
	}{
		{"alice", "", "", ""},
		{"a.b_c-D9", "", "InvalidParameter.X.InvalidChars", "InvalidParameter.X.InvalidChars"},
		{"a-9", "", "", ""},
		{"", missing, missing, missing},
		{"a/b", "InvalidParameter.X.InvalidChars", "InvalidParameter.X.InvalidChars", "InvalidParameter.X.InvalidChars"},
		{"a b", "InvalidParameter.X.InvalidChars", "InvalidParameter.X.InvalidChars", "InvalidParameter.X.InvalidChars"},
		{"é", "InvalidParameter.X.InvalidChars", "InvalidParameter.X.InvalidChars", "InvalidParameter.X.InvalidChars"},
		{strings.Repeat("a", 64), "", "", ""},
		{strings.Repeat("a", 65), "InvalidParameter.X.Length", "InvalidParameter.X.Length", ""},
		{strings.Repeat("a", 128), "InvalidParameter.X.Length", "InvalidParameter.X.Length", ""},
		{strings.Repeat("a", 129), "InvalidParameter.X.Length", "InvalidParameter.X.Length", "InvalidParameter.X.Length"},
	} {
		for kind, got := range map[string]string{
			"user " + tt.user:   "user " + code(CheckUserName("X", tt.name)),
			"group " + tt.group: "group " + code(CheckGroupName("X", tt.name)),
			"policy " + tt.polc: "policy " + code(CheckPolicyName("X", tt.name)),
		} {
			if got != kind {
				t.Errorf("name %q: %s; want %s", tt.name, got, kind)
			}
		}
	}
}

func ptr(s string) *string { return &s }

func TestProfile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    Profile
		want string
	}{
		{"nothing", Profile{}, ""},
		{"all", Profile{ptr("Álice B."), ptr("86-18600008888"), ptr("a@b.example"), ptr("x")}, ""},
		{"empty again", Profile{ptr(""), ptr(""), ptr(""), ptr("")}, ""},
		{"control in the display name", Profile{DisplayName: ptr("a\nb")}, "InvalidParameter.NewDisplayName.InvalidChars"},
		{"markup in the display name", Profile{DisplayName: ptr("<b>")}, "InvalidParameter.NewDisplayName.InvalidChars"},
		{"long display name", Profile{DisplayName: ptr(strings.Repeat("é", 129))}, "InvalidParameter.NewDisplayName.Length"},
		{"phone without country", Profile{MobilePhone: ptr("18600008888")}, "InvalidParameter.NewMobilePhone.Format"},
		{"no address", Profile{Email: ptr("alice")}, "InvalidParameter.NewEmail.Format"},
		{"long comments", Profile{Comments: ptr(strings.Repeat("é", 129))}, "InvalidParameter.NewComments.Length"},
	} {
		u, err := User{Name: "alice", DisplayName: "alice"}.Update("New", "", tt.p, day2)
		if code(err) != tt.want || err == nil && (u.UpdatedAt != day2 || u.DisplayName == "") {
			t.Errorf("%s: %+v, %s; want %q", tt.name, u, code(err), tt.want)
		}
	}
}

func TestUser(t *testing.T) {
	t.Parallel()
	u, err := NewUser("1", "2", "alice", Profile{}, day1)
	if err != nil || u.DisplayName != "alice" || u.Deletable() != nil {
		t.Fatalf("NewUser = %+v, %v", u, err)
	}
	// Each step changes the user, or is refused with a code and leaves the user.
	for _, step := range []struct {
		name string
		do   func(User) (User, error)
		want string
		left string // what keeps the user from being deleted
	}{
		{"first key", func(u User) (User, error) { return u.AddKey("k1", day1) }, "", ram.CodeDeleteUserKey},
		{"second key", func(u User) (User, error) { return u.AddKey("k2", day1) }, "", ram.CodeDeleteUserKey},
		{"third key", func(u User) (User, error) { return u.AddKey("k3", day1) }, ram.CodeKeyLimit, ram.CodeDeleteUserKey},
		{"switch off", func(u User) (User, error) { return u.SetKey("k2", true) }, "", ram.CodeDeleteUserKey},
		{"switch off another's", func(u User) (User, error) { return u.SetKey("k3", true) }, ram.CodeKeyNotExist,
			ram.CodeDeleteUserKey},
		{"remove another's", func(u User) (User, error) { return u.RemoveKey("k3") }, ram.CodeKeyNotExist,
			ram.CodeDeleteUserKey},
		{"remove first", func(u User) (User, error) { return u.RemoveKey("k1") }, "", ram.CodeDeleteUserKey},
		{"remove second", func(u User) (User, error) { return u.RemoveKey("k2") }, "", ""},
		{"attach", func(u User) (User, error) { return u.Attach(Custom, "p", day1) }, "", ram.CodeDeleteUserPolicy},
		{"attach again", func(u User) (User, error) { return u.Attach(Custom, "p", day1) }, ram.CodeUserHasPolicy,
			ram.CodeDeleteUserPolicy},
		{"same name, other type", func(u User) (User, error) { return u.Attach(System, "p", day1) }, "",
			ram.CodeDeleteUserPolicy},
		{"detach what is not", func(u User) (User, error) { return u.Detach(Custom, "q") }, ram.CodeUserWithoutPolicy,
			ram.CodeDeleteUserPolicy},
		{"detach", func(u User) (User, error) { return u.Detach(System, "p") }, "", ram.CodeDeleteUserPolicy},
		{"detach", func(u User) (User, error) { return u.Detach(Custom, "p") }, "", ""},
		{"join", func(u User) (User, error) { return u.Join("g", day1) }, "", ram.CodeDeleteUserGroup},
		{"join again", func(u User) (User, error) { return u.Join("g", day1) }, ram.CodeUserInGroup, ram.CodeDeleteUserGroup},
		{"leave another", func(u User) (User, error) { return u.Leave("h") }, ram.CodeUserNotInGroup,
			ram.CodeDeleteUserGroup},
		{"leave", func(u User) (User, error) { return u.Leave("g") }, "", ""},
		{"bad name", func(u User) (User, error) { return u.Update("New", "a/b", Profile{}, day2) },
			"InvalidParameter.NewUserName.InvalidChars", ""},
		{"rename", func(u User) (User, error) { return u.Update("New", "bob", Profile{}, day2) }, "", ""},
	} {
		before := fmt.Sprintf("%+v", u)
		next, err := step.do(u)
		if fmt.Sprintf("%+v", u) != before {
			t.Fatalf("%s changed its receiver", step.name)
		}
		if code(err) != step.want {
			t.Fatalf("%s: %s; want %q", step.name, code(err), step.want)
		}
		if err == nil {
			u = next
		}
		if got := code(u.Deletable()); got != step.left {
			t.Fatalf("after %s: Deletable %q; want %q", step.name, got, step.left)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	var u User
	var g Group
	var err error
	for i := range MaxSystemPolicies {
		if u, err = u.Attach(System, fmt.Sprint("s", i), day1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range MaxCustomPolicies {
		name := fmt.Sprint("c", i)
		if u, err = u.Attach(Custom, name, day1); err != nil {
			t.Fatal(err)
		}
		if g, err = g.Attach(Custom, name, day1); err != nil {
			t.Fatal(err)
		}
	}
	for i := range MaxGroupsOfUser {
		if u, err = u.Join(fmt.Sprint("g", i), day1); err != nil {
			t.Fatal(err)
		}
	}
	_, s := u.Attach(System, "more", day1)
	_, c := u.Attach(Custom, "more", day1)
	_, j := u.Join("more", day1)
	_, a := g.Attach(Custom, "more", day1)
	got := []string{code(s), code(c), code(j), code(a)}
	want := []string{ram.CodeUserPolicyLimit, ram.CodeUserPolicyLimit, ram.CodeUserGroupLimit, ram.CodeGroupPolicyLimit}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("one too many: %v; want %v", got, want)
	}
}

func TestGroup(t *testing.T) {
	t.Parallel()
	g, err := NewGroup("1", "2", "g", "text", day1)
	if err != nil || g.Comments != "text" || g.Deletable() != nil {
		t.Fatalf("NewGroup = %+v, %v", g, err)
	}
	if _, err := NewGroup("1", "2", "g_", "", day1); code(err) != "InvalidParameter.GroupName.InvalidChars" {
		t.Errorf("a bad name: %s", code(err))
	}
	if _, err := NewGroup("1", "2", "g", strings.Repeat("x", 129), day1); code(err) != "InvalidParameter.Comments.Length" {
		t.Errorf("long comments: %s", code(err))
	}
	g.Members = 1
	if got := code(g.Deletable()); got != ram.CodeDeleteGroupUser {
		t.Errorf("with a user: %s", got)
	}
	g.Members = 0
	if g, err = g.Attach(System, "p", day1); err != nil || code(g.Deletable()) != ram.CodeDeleteGroupPolicy {
		t.Errorf("with a policy: %v, %s", err, code(g.Deletable()))
	}
	if _, err = g.Detach(Custom, "p"); code(err) != ram.CodeGroupWithoutPolicy {
		t.Errorf("detach of another type: %s", code(err))
	}
	if g, err = g.Detach(System, "p"); err != nil || g.Deletable() != nil {
		t.Errorf("detach: %v, %v", err, g.Deletable())
	}
}

func TestPolicyVersions(t *testing.T) {
	t.Parallel()
	p, err := NewPolicy("1", "p", "d1", "text", map[string]string{"team": "a"}, day1)
	if err != nil || p.Default != "v1" || p.Document() != "d1" {
		t.Fatalf("NewPolicy = %+v, %v", p, err)
	}
	for _, step := range []struct {
		name string
		do   func(Policy) (Policy, error)
		want string
		then string // versions, the default with a star
	}{
		{"v2", add("d2", false, ""), "", "v1* v2"},
		{"v3 counts", add("d3", true, ""), "", "v1 v2 v3*"},
		{"v4", add("d4", false, "None"), "", "v1 v2 v3* v4"},
		{"v5", add("d5", false, ""), "", "v1 v2 v3* v4 v5"},
		{"a sixth", add("d6", true, ""), ram.CodePolicyVersionLimit, "v1 v2 v3* v4 v5"},
		{"back to the first", func(p Policy) (Policy, error) { return p.SetDefault("v1", day2) }, "", "v1* v2 v3 v4 v5"},
		{"room by deleting the oldest but the default", add("d6", false, RotateOldest), "", "v1* v3 v4 v5 v6"},
		{"delete the default", func(p Policy) (Policy, error) { return p.DeleteVersion("v1", day2) },
			ram.CodeDeleteDefaultVersion, "v1* v3 v4 v5 v6"},
		{"delete the newest", func(p Policy) (Policy, error) { return p.DeleteVersion("v6", day2) }, "", "v1* v3 v4 v5"},
		{"an ID is not used twice", add("d7", false, ""), "", "v1* v3 v4 v5 v7"},
		{"no such version", func(p Policy) (Policy, error) { return p.SetDefault("v2", day2) }, ram.CodePolicyVersionNotExist,
			"v1* v3 v4 v5 v7"},
		{"no version at all", func(p Policy) (Policy, error) { return p.SetDefault("2", day2) },
			"InvalidParameter.VersionId.Format", "v1* v3 v4 v5 v7"},
		{"no version given", func(p Policy) (Policy, error) { return p.DeleteVersion("", day2) },
			fmt.Sprintf("kind %d VersionId", fault.Missing), "v1* v3 v4 v5 v7"},
	} {
		before := fmt.Sprintf("%+v", p)
		next, err := step.do(p)
		if fmt.Sprintf("%+v", p) != before {
			t.Fatalf("%s changed its receiver", step.name)
		}
		if err == nil {
			p = next
		}
		var then []string
		for _, v := range p.Versions {
			if v.ID == p.Default {
				v.ID += "*"
			}
			then = append(then, v.ID)
		}
		if code(err) != step.want || strings.Join(then, " ") != step.then {
			t.Fatalf("%s: %s, %v; want %q, %s", step.name, code(err), then, step.want, step.then)
		}
	}
	if got := code(p.Deletable(false)); got != ram.CodeDeletePolicyVersion || p.Deletable(true) != nil {
		t.Errorf("Deletable with versions: %s, cascading %v", got, p.Deletable(true))
	}
	p.Users = 1
	if got := code(p.Deletable(true)); got != ram.CodeDeletePolicyUser {
		t.Errorf("Deletable with a user: %s", got)
	}
	p.Users, p.Groups = 0, 1
	if got := code(p.Deletable(true)); got != ram.CodeDeletePolicyGroup {
		t.Errorf("Deletable with a group: %s", got)
	}
	for want, tags := range map[bool]map[string]string{true: {"team": ""}, false: {"team": "b"}} {
		if p.HasTags(tags) != want {
			t.Errorf("HasTags(%v) = %v", tags, !want)
		}
	}
}

func add(document string, makeDefault bool, strategy string) func(Policy) (Policy, error) {
	return func(p Policy) (Policy, error) {
		p, _, err := p.AddVersion(document, makeDefault, strategy, day2)
		return p, err
	}
}

func TestNewPolicyErrors(t *testing.T) {
	t.Parallel()
	for want, try := range map[string]func() error{
		"InvalidParameter.PolicyName.InvalidChars": func() error {
			_, err := NewPolicy("1", "p_", "d", "", nil,
				day1)
			return err
		},
		"InvalidParameter.Description.Length": func() error {
			_, err := NewPolicy("1", "p", "d", strings.Repeat("x", 1025), nil, day1)
			return err
		},
		fmt.Sprintf("kind %d Tag", fault.Invalid): func() error {
			_, err := NewPolicy("1", "p", "d", "", map[string]string{"": "x"}, day1)
			return err
		},
	} {
		if got := code(try()); got != want {
			t.Errorf("%s; want %s", got, want)
		}
	}
	if got := code(CheckPolicyType("Inline")); got != ram.CodePolicyType {
		t.Errorf("a type that is none: %s", got)
	}
}

func TestNewKey(t *testing.T) {
	t.Parallel()
	id, secret, err := NewKey(rand.Reader)
	if err != nil || !regexp.MustCompile(`^KT[A-Za-z0-9]{22}$`).MatchString(id) || len(secret) != 40 {
		t.Errorf("NewKey: ID %q, a secret of %d characters, %v", id, len(secret), err)
	}
	user, err := NewID(rand.Reader)
	if err != nil || !regexp.MustCompile(`^2[0-9]{17}$`).MatchString(user) {
		t.Errorf("NewID: %q, %v", user, err)
	}
	// Bytes past the last whole multiple of the alphabet are left out, so that no character is
	// likelier.
	source := append(bytes.Repeat([]byte{255, 250}, 32), bytes.Repeat([]byte{7}, 64)...)
	if got, err := text(bytes.NewReader(source), digits, 5); got != "77777" || err != nil {
		t.Errorf("text = %q, %v; want 77777", got, err)
	}
	if _, _, err := NewKey(bytes.NewReader(nil)); err == nil {
		t.Error("a key was made without randomness")
	}
}

func TestSystemPolicies(t *testing.T) {
	t.Parallel()
	last := ""
	for _, p := range SystemPolicies() {
		if got, ok := SystemPolicy(p.Name); !ok || got.Document() == "" || p.Name <= last || p.Type != System {
			t.Errorf("%s: %+v, %v; want a document, in the order of names", p.Name, got, ok)
		}
		last = p.Name
	}
	if _, ok := SystemPolicy("none"); ok {
		t.Error("there is a system policy that nobody wrote")
	}
}
