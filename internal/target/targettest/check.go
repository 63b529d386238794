package targettest

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/target"
)

// check verifies what the check of a kind promises: it changes nothing, finds the same again, says
// it in declared tokens, and takes silence for neither a reason nor a permission.
func (h Harness) check(t *testing.T) {
	t.Run("of an ordinary account", h.checkOfOrdinary)
	t.Run("of no account", h.checkOfNone)
	t.Run("of no other account", h.checkOfNoPartner)
	t.Run("windows", h.windows)
	t.Run("faults", h.checkUnderFaults)
	t.Run("wrong administrator", h.checkWithWrongAdmin)
}

// checker opens the target at an address as the administrator.
func (h Harness) checker(t *testing.T, addr string, admin target.Credential) target.Checker {
	t.Helper()
	c, ok := h.open(t, addr, admin).(target.Checker)
	if !ok {
		t.Fatal("the kind must implement target.Checker: an operator must learn beforehand what a rotation meets")
	}
	return c
}

func (h Harness) findings(t *testing.T, c target.Checker, of target.Credential) []target.Finding {
	t.Helper()
	var list []target.Finding
	h.do(t, "CheckAccount of "+of.Account, func(ctx context.Context) (err error) {
		list, err = c.CheckAccount(ctx, h.checkRequest(of))
		return err
	})
	return list
}

func (h Harness) checkRequest(of target.Credential) target.CheckRequest {
	return target.CheckRequest{Current: of, Strategies: h.Kind.Strategies}
}

// checkOfOrdinary verifies that a check of an account that can be rotated finds nothing serious,
// finds the same when it is repeated, and leaves the account as it is.
func (h Harness) checkOfOrdinary(t *testing.T) {
	good := h.Account(t)
	c := h.checker(t, h.Addr, h.Admin)
	before := h.trace(t, good.Account)
	list := h.findings(t, c, good)
	for _, f := range list {
		h.formOf(t, f)
		if f.Verdict == target.Impossible {
			t.Errorf("an account that can be rotated: %+v", f)
		}
		h.isInUse(t, f, true)
	}
	if again := h.findings(t, c, good); !reflect.DeepEqual(again, list) {
		t.Errorf("the check finds\n%+v\nand the next one\n%+v", list, again)
	}
	if after := h.trace(t, good.Account); after != before {
		t.Errorf("a check has left a trace:\n%s\nbefore:\n%s", after, before)
	}
	h.works(t, h.Open(t, h.Addr), "after a check", good, true)
}

// trace returns what the server stores of an account, where the harness can read it.
func (h Harness) trace(t *testing.T, account string) string {
	t.Helper()
	if h.Standing == nil || h.Standing.Trace == nil {
		return ""
	}
	return h.Standing.Trace(t, account)
}

var token = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// formOf verifies that operators and programs can use a finding.
func (h Harness) formOf(t *testing.T, f target.Finding) {
	t.Helper()
	h.secrets.absentIn(t, f.Text+f.Fix+f.Account)
	if !token.MatchString(f.Code) || !h.documents(t, f.Code) {
		t.Errorf("the code %q is not a token that the page of the kind has", f.Code)
	}
	if !strings.HasSuffix(f.Text, ".") || strings.TrimSpace(f.Text) != f.Text {
		t.Errorf("%s: %q is not a sentence", f.Code, f.Text)
	}
	for _, s := range f.Strategies {
		if !slices.Contains(h.Kind.Strategies, s) {
			t.Errorf("%s is about %s, which the kind does not have", f.Code, s)
		}
	}
	switch f.Verdict {
	case target.Note, target.Impossible:
		if f.Consent != "" {
			t.Errorf("%s has the verdict %s and a consent", f.Code, f.Verdict)
		}
	case target.NeedsConsent:
		if !token.MatchString(f.Consent) || !h.documents(t, f.Consent) {
			t.Errorf("%s: the consent %q is not a token that the page of the kind has", f.Code, f.Consent)
		}
	default:
		t.Errorf("%s has the verdict %q", f.Code, f.Verdict)
	}
}

// Findings returns what a check reports. Each finding must be complete, and without the credential
// in use and the further secrets.
func Findings(t testing.TB, tt target.Target, r target.CheckRequest, secrets ...string) []target.Finding {
	t.Helper()
	list, err := tt.(target.Checker).CheckAccount(Within(t), r)
	Must(t, err)
	for _, f := range list {
		if !strings.HasSuffix(f.Text, ".") || f.Verdict != target.Note && f.Fix == "" ||
			(f.Verdict == target.NeedsConsent) != (f.Consent != "") {
			t.Errorf("%s: %+v is not complete", f.Code, f)
		}
		for _, s := range append(secrets, r.Current.Secret.Reveal()) {
			if strings.Contains(f.Text+f.Fix, s) {
				t.Errorf("%s shows a secret", f.Code)
			}
		}
	}
	return list
}

// Codes returns the verdict and the code of each finding, sorted and in one line.
func Codes(list []target.Finding) string {
	var out []string
	for _, f := range list {
		code := string(f.Verdict) + " " + f.Code
		if f.Outlasts {
			code += " outlasts"
		}
		out = append(out, code)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// ofPlugin matches the tokens that a plug-in makes; its page documents the prefix.
var ofPlugin = regexp.MustCompile(`^plugin-.+`)

// documents reports whether the page of the kind has a token. MariaDB has no page of its own.
func (h Harness) documents(t *testing.T, word string) bool {
	t.Helper()
	name := h.Kind.Name
	if name == "mariadb" {
		name = "mysql"
	}
	dir, err := os.Getwd()
	Must(t, err)
	for {
		b, err := os.ReadFile(filepath.Join(dir, "docs", "targets", name+".md"))
		if err == nil {
			return strings.Contains(string(b), "`"+ofPlugin.ReplaceAllString(word, "plugin-…")+"`")
		}
		if filepath.Dir(dir) == dir {
			t.Fatalf("docs/targets has no page %s.md", name)
		}
		dir = filepath.Dir(dir)
	}
}

// checkOfNone verifies that a check finds that there is no such account, unless the harness says
// why it cannot.
func (h Harness) checkOfNone(t *testing.T) {
	c := h.Account(t)
	c.Account = absent
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	list, err := h.checker(t, h.Addr, h.Admin).CheckAccount(ctx, h.checkRequest(c))
	h.secrets.absent(t, err)
	serious := slices.ContainsFunc(list, func(f target.Finding) bool { return f.Verdict == target.Impossible })
	for _, f := range list {
		h.formOf(t, f)
		h.isInUse(t, f, true)
	}
	switch {
	case h.Unread != "" && serious:
		t.Errorf("the harness says that nothing is read (%s), and the check finds %+v", h.Unread, list)
	case h.Unread != "":
	case err != nil && target.ClassOf(err) != target.Denied, err == nil && !serious:
		t.Errorf("the check of an account that does not exist: %+v, %v of class %v", list, err, target.ClassOf(err))
	}
}

// checkOfNoPartner verifies that what a check finds about the other account of strategy Double is
// not said of the account in use: an emergency would not wait for it.
func (h Harness) checkOfNoPartner(t *testing.T) {
	if h.Unread != "" || !slices.Contains(h.Kind.Strategies, target.Double) {
		t.Skip("the kind reads no second account")
	}
	r := h.checkRequest(h.Account(t))
	r.Partner = absent
	serious := false
	h.do(t, "CheckAccount with a missing account", func(ctx context.Context) error {
		list, err := h.checker(t, h.Addr, h.Admin).CheckAccount(ctx, r)
		for _, f := range list {
			if f.Verdict == target.Impossible {
				serious = true
				h.isInUse(t, f, false)
			}
		}
		return err
	})
	if !serious {
		t.Error("the check does not find that the other account is missing")
	}
}

// isInUse verifies that a finding about an account says whether it is the one in use, in whatever
// form it shows its name.
func (h Harness) isInUse(t *testing.T, f target.Finding, want bool) {
	t.Helper()
	if f.InUse != (want && f.Account != "") {
		t.Errorf("%s says that %q is in use: %v", f.Code, f.Account, f.InUse)
	}
}

// windows verifies that the target says for each strategy how long a credential may be refused.
func (h Harness) windows(t *testing.T) {
	w, ok := h.Open(t, h.Addr).(target.Windower)
	if !ok {
		t.Fatal("the kind must implement target.Windower")
	}
	for _, s := range h.Kind.Strategies {
		text := w.Window(s)
		if !strings.HasSuffix(text, ".") || s == target.Single && strings.HasPrefix(text, "None") {
			t.Errorf("the window of %s is %q", s, text)
		}
	}
}

// checkUnderFaults verifies that a lost answer is neither a reason against a rotation nor a
// permission: the check finds what it finds without the fault, or returns an error.
func (h Harness) checkUnderFaults(t *testing.T) {
	h.overNetwork(t)
	good := h.Account(t)
	p := NewProxy(t, h.Addr)
	through := h.checker(t, p.Addr(), h.Admin)
	whole := codes(h.findings(t, through, good))
	_, length, _ := p.Passed()
	const cuts = 12
	for i := range cuts {
		p.Set(Fault{}, Fault{After: length * i / cuts, Kind: Reset})
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		list, err := through.CheckAccount(ctx, h.checkRequest(good))
		cancel()
		h.noReason(t, whole, list, err)
		if t.Failed() {
			t.Fatalf("the replies were cut after %d of %d bytes", length*i/cuts, length)
		}
	}
	p.Set(Fault{}, Fault{Kind: Silence})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	list, err := through.CheckAccount(ctx, h.checkRequest(good))
	h.noReason(t, whole, list, err)
	if took := time.Since(began); took > patience+5*time.Second {
		t.Errorf("CheckAccount at a silent server took %v with a context of %v", took, patience)
	}
}

// noReason asserts that a check under a fault gives no reason against a rotation, and leaves
// nothing out of the whole list without an error.
func (h Harness) noReason(t *testing.T, whole []string, list []target.Finding, err error) {
	t.Helper()
	h.secrets.absent(t, err)
	for _, f := range list {
		if f.Verdict != target.Note && err != nil {
			t.Errorf("a fault: %+v", f)
		}
	}
	found := codes(list)
	if err == nil && !slices.Equal(found, whole) ||
		slices.ContainsFunc(found, func(code string) bool { return !slices.Contains(whole, code) }) {
		t.Errorf("a fault: the check finds %q and returns %v; without the fault it finds %q", found, err, whole)
	}
	if class := target.ClassOf(err); err != nil && class != target.Unknown && class != target.Unreachable {
		t.Errorf("a fault: %v of class %v, want no verdict", err, class)
	}
}

// codes returns the verdicts and codes of findings.
func codes(list []target.Finding) []string {
	var out []string
	for _, f := range list {
		out = append(out, string(f.Verdict)+" "+f.Code)
	}
	slices.Sort(out)
	return out
}

func (h Harness) checkWithWrongAdmin(t *testing.T) {
	if !h.Kind.NeedsAdmin || h.Unread != "" {
		t.Skip("the check asks nothing as the administrator")
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	list, err := h.checker(t, h.Addr, h.wrong(t, h.Admin)).CheckAccount(ctx, h.checkRequest(h.Account(t)))
	h.secrets.absent(t, err)
	serious := slices.ContainsFunc(list, func(f target.Finding) bool { return f.Verdict == target.Impossible })
	if target.ClassOf(err) != target.Denied && (err != nil || !serious) {
		t.Errorf("a check with a wrong administrator: %+v, %v of class %v", list, err, target.ClassOf(err))
	}
}
