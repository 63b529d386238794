package oauth

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/sensitive"
)

// Consents to findings.
const (
	consentToReplace = "set-replaces-client"
	consentToRemove  = "other-secrets"
	consentToUnread  = "client-not-read"
	consentUncounted = "secrets-not-read"
)

// Window says how long a credential may be refused.
func (p *provider) Window(s target.Strategy) string {
	if s == target.Single {
		return "One request: a token request with the old secret is refused after it. Tokens that were issued stay valid." +
			p.endpoints().Late()
	}
	return "None: the old secret works until it is removed at the end of the grace period."
}

// CheckAccount reports what a rotation of a client's secret would meet.
func (p *provider) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	f := r.OfCurrent()
	if p.config.mayDropMembers() {
		f.NeedsConsent(consentToReplace,
			"The call set is a PUT of the whole client. Keyturn cannot see whether its body has all that the client must keep.",
			"Set get to the same URL as set: everything else is then carried over.")
	}
	if p.config.Get == nil {
		f.NeedsConsent(consentToUnread,
			"The target has no call get, so nothing was read of the client: a rotation relies on logins. Keyturn "+
				"cannot see whether the client has other secrets, which the provider may remove.",
			"Set get in the target, or agree if the client has one secret.")
		return f.List, nil
	}
	c, err := p.client(ctx, f.Account, []sensitive.Value{r.Current.Secret, p.admin.Secret})
	var e *target.Error
	if errors.As(err, &e) && e.Code == codeNoClient {
		f.Impossible("no-client", "The provider does not know a client with this ID.", "Create the client.")
		return f.List, nil
	}
	if err != nil {
		return f.List, f.Denied("client-denied", err, "Give the administrator the right to read clients.")
	}
	p.checkClient(f, c.members, len(r.Known()), time.Now())
	return f.List, nil
}

// checkClient reports what a client's members (RFC 7591, section 2) mean for a rotation. known is
// how many of its secrets Keyturn knows.
func (p *provider) checkClient(f *target.Findings, c map[string]any, known int, now time.Time) {
	if id, ok := c["client_id"].(string); ok && id != f.Account {
		f.Impossible("other-client", fmt.Sprintf("The call get reads the client %s.", fault.Quoted(id)),
			"Correct the url of get and of set.")
		return
	}
	if enabled, ok := c["enabled"].(bool); ok && !enabled {
		f.Closed("client-disabled", "The client is disabled.", "Enable the client.")
	}
	p.checkMethod(f, c)
	p.checkRights(f, c)
	checkExpiry(f, c, now)
	p.checkSecrets(f, c, known)
	if c["jwks_uri"] != nil && c["jwks_uri"] != "" || len(listOf(c["jwks"], "keys")) > 0 {
		f.Outlasting("other-keys", "The client has keys of its own (jwks), which a rotation leaves alone.",
			"After a leak, remove the keys that are not the application's from jwks or jwks_uri.")
	}
}

// listOf returns a member that is a list of an object.
func listOf(object any, name string) []any {
	m, _ := object.(map[string]any)
	list, _ := m[name].([]any)
	return list
}

// checkMethod reports a client that does not authenticate with a secret in the way of this target.
func (p *provider) checkMethod(f *target.Findings, c map[string]any) {
	method, ok := c["token_endpoint_auth_method"].(string)
	want := "client_secret_" + cmp.Or(p.config.ClientAuth, "basic")
	switch {
	case !ok || method == "" || method == want:
	case method == "none":
		f.Impossible("public-client",
			"The client is public: it authenticates with nothing, so it has no secret to rotate.",
			"Give the client a method with a secret.")
	case method == "client_secret_basic" || method == "client_secret_post":
		f.Impossible("auth-method-differs",
			fmt.Sprintf("The client authenticates with %s, and the target with %s.", method, want),
			fmt.Sprintf("Set client_auth of the target to %q.", strings.TrimPrefix(method, "client_secret_")))
	default:
		f.Impossible("auth-method", fmt.Sprintf("The client authenticates with %s. A login with a secret is refused, so no "+
			"rotation of a secret can be proven.", target.Said(method)),
			"Rotate the keys of the client where it has them, or give it the method "+want+".")
	}
}

// checkRights reports a client that may not do what the login asks for.
func (p *provider) checkRights(f *target.Findings, c map[string]any) {
	grants, ok := c["grant_types"].([]any)
	if ok && len(grants) > 0 && !slices.Contains(grants, any("client_credentials")) {
		p.notAdmitted(f, "grant-not-allowed",
			"The client may not use the grant client_credentials, with which a secret is proven.",
			"Allow the client that grant", unauthorizedClient)
	}
	if scope, ok := c["scope"].(string); ok && scope != "" {
		allowed := strings.Fields(scope)
		for _, s := range strings.Fields(p.scope()) {
			if !slices.Contains(allowed, s) {
				p.notAdmitted(f, "scope-not-allowed", fmt.Sprintf("The client may not ask for the scope %s.", fault.Quoted(s)),
					"Allow it, or set the scope that the application asks for", invalidScope)
			}
		}
	}
	if list, ok := c["audience"].([]any); ok && p.audience() != "" && !slices.Contains(list, any(p.audience())) {
		f.Impossible("audience-not-allowed",
			fmt.Sprintf("The client may not ask for the audience %s.", fault.Quoted(p.audience())),
			"Allow it, or set the audience that the application asks for.")
	}
}

// notAdmitted adds a finding about a token request that the provider answers with a certain error.
// Where that error proves the secret, it stands in the way of nothing.
func (p *provider) notAdmitted(f *target.Findings, code, text, fix, answer string) {
	if slices.Contains(p.config.Admitted, answer) {
		f.Note(code, fmt.Sprintf("%s The answer %s counts as proof of the secret (setting admitted).", text, answer))
		return
	}
	f.Impossible(code, text, fmt.Sprintf("%s. If the provider answers %s only to a client that it has authenticated, "+
		"add that to the setting admitted of the target.", fix, answer))
}

// checkExpiry reports when the secret expires. A call that sets another one seldom changes that.
func checkExpiry(f *target.Findings, c map[string]any, now time.Time) {
	number, _ := c["client_secret_expires_at"].(json.Number)
	seconds, err := number.Int64()
	if err != nil || seconds <= 0 {
		return
	}
	at := time.Unix(seconds, 0).UTC()
	if at.After(now) {
		f.Note("secret-expires", fmt.Sprintf("The secret expires at %s (client_secret_expires_at); a new one too, "+
			"unless the provider or the body of set changes that.", at.Format(time.RFC3339)))
		return
	}
	f.Closed("secret-expired",
		fmt.Sprintf("The secret expired at %s (client_secret_expires_at).", at.Format(time.RFC3339)),
		"Change client_secret_expires_at at the provider.")
}

// checkSecrets reports further secrets of the client, beside those that Keyturn knows.
func (p *provider) checkSecrets(f *target.Findings, c map[string]any, known int) {
	if p.config.Get.Secrets == "" {
		return
	}
	v, _ := at(c, p.config.Get.Secrets)
	list, ok := v.([]any)
	limit := cmp.Or(p.config.Get.MaxSecrets, defaultSecrets)
	switch {
	case !ok:
		f.NeedsConsent(consentUncounted,
			fmt.Sprintf("The client has no list at %s, so its secrets were not counted, and the provider may remove one that "+
				"is in use.", p.config.Get.Secrets),
			"Correct secrets of get in the target.")
	case p.config.Remove != nil && len(list) >= limit:
		f.Impossible("secret-limit",
			fmt.Sprintf("The client has %d secrets, and the provider keeps %d.", len(list), limit),
			"Remove the secret that is not in use.", target.Overlap)
		if len(list) > known {
			f.LastOutlasts()
		}
	case p.config.Remove != nil && len(list) > known:
		f.Outlasting(consentToRemove,
			fmt.Sprintf("The client has %d secrets. A rotation removes only the one that it replaces.", len(list)),
			"After a leak, remove those that no application needs at the provider.")
	case len(list) > known:
		f.NeedsConsent(consentToRemove,
			fmt.Sprintf("The client has %d secrets, and the provider may remove all others when a secret is set.", len(list)),
			"Remove those that are not in use, or set remove for the strategy overlap.", target.Single)
		f.LastOutlasts()
	}
}

var (
	_ target.Checker  = (*provider)(nil)
	_ target.Windower = (*provider)(nil)
	_ target.Copied   = (*provider)(nil)
)
