package rabbitmq

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/rest"
)

// Consents to findings.
const (
	consentToLinks   = "links"
	consentToPartner = "partner-differs"
	consentUnlinked  = "links-not-read"
	consentToNodes   = "nodes-not-read"
)

// Window says how long a credential may be refused.
func (b *broker) Window(s target.Strategy) string {
	if s == target.Single {
		return "One request: a login with the old password is refused after it. Open connections stay open."
	}
	return "None: the old value works until it is cleared at the end of the grace period."
}

// CheckAccount reports what a rotation of a user would meet.
func (b *broker) CheckAccount(ctx context.Context, r target.CheckRequest) ([]target.Finding, error) {
	f := r.OfCurrent()
	u, err := b.checkUser(ctx, f, r.Current)
	switch {
	case errors.Is(err, errNoUser):
		f.LastOutlasts() // the backend that knows the user goes on to accept the credential
		return f.List, nil
	case err != nil || u.Name == "":
		return f.List, err
	}
	switch {
	case u.Hash == "":
		f.Drifted("no-password", "The user has no password: it logs in with a client certificate or by another backend. "+
			"A rotation would give it one.",
			"If it should have one: rabbitmqctl change_password with the password in the secret.")
	case u.accepts(r.Current.Secret) == target.Dead:
		f.Impossible("password-elsewhere",
			"RabbitMQ's own database does not have the password in use: the user logs in by another backend, or not at all.",
			"Put the password that RabbitMQ has into the secret, or rotate it where that backend keeps it.")
		f.LastOutlasts()
	}
	if err := b.checkRights(ctx, f, u); err != nil {
		return nil, err
	}
	if err := b.checkLinks(ctx, f); err != nil {
		return nil, err
	}
	if err := b.checkNodes(ctx, f); err != nil {
		return nil, err
	}
	if r.Partner == "" {
		return f.List, nil
	}
	return b.checkPartner(ctx, f, r.OfPartner(), u)
}

// checkUser reads a user and reports what its form means. A user that does not exist, which is
// reported, too, is errNoUser; the name of one that the administrator may not read is empty.
func (b *broker) checkUser(
	ctx context.Context, f *target.Findings, c target.Credential, strategies ...target.Strategy,
) (user, error) {
	u, err := b.user(ctx, fmt.Sprintf("read user %s at %s", fault.Quoted(f.Account), b.name), target.Credential{
		Account: f.Account,
		Secret:  c.Secret,
	})
	switch {
	case errors.Is(err, errNoUser):
		f.Impossible("not-internal",
			"RabbitMQ's own database has no such user; another backend, such as LDAP or OAuth 2, may know it.",
			"Create the user with rabbitmqctl add_user, or rotate it where that backend keeps it.", strategies...)
		return user{}, errNoUser
	case err != nil:
		return user{}, f.Denied("user-not-read", err, b.toRead())
	case !u.keeps():
		if !slices.Contains(algorithms, u.Algorithm) && u.Hash != "" {
			f.Impossible("hash-not-known", fmt.Sprintf("The password has the algorithm %s. Keyturn cannot see whether it is "+
				"the one to be cleared.", target.Said(u.Algorithm)), "Set the password again with rabbitmqctl change_password.",
				target.Double)
		}
		f.NeedsConsent(consentToHash,
			fmt.Sprintf("The password has the algorithm %s, in which no hash can be made here; a rotation stores %s.",
				target.Said(u.Algorithm), u.algorithm()),
			"Set the password again with rabbitmqctl change_password.", strategies...)
	}
	return u, nil
}

// toRead says what lets the administrator read everything.
func (b *broker) toRead() string {
	return "rabbitmqctl set_user_tags " + fault.ShellWord(b.admin.Account) + " administrator"
}

// checkRights reports limits of a user, and whether it may open the virtual host.
func (b *broker) checkRights(ctx context.Context, f *target.Findings, u user) error {
	if limit, ok := u.Limits["max-connections"]; ok && limit >= 0 {
		f.Note("connection-limit", fmt.Sprintf("The user may have %d connections. A login that is refused for this limit "+
			"counts as proof of the password.", limit))
	}
	permitted, err := b.mayOpen(ctx, f.Account)
	if err != nil || permitted {
		return err
	}
	f.Note("no-permission", fmt.Sprintf("The user has no permissions in the virtual host %q. The refusal of a login "+
		"counts as proof of the password, and no login is proof that an application works.", b.config.VHost))
	return nil
}

// mayOpen reports whether a user has permissions in the virtual host.
func (b *broker) mayOpen(ctx context.Context, account string) (bool, error) {
	permissions, err := b.rights(ctx, account, "permissions")
	return slices.ContainsFunc(permissions, func(p map[string]string) bool { return p["vhost"] == b.config.VHost }), err
}

// checkSession reports what keeps the other user of strategy double from the session without which
// it does not become current.
func (b *broker) checkSession(ctx context.Context, f *target.Findings, u user) error {
	if limit, ok := u.Limits["max-connections"]; ok && limit == 0 {
		f.Impossible("no-connection", "The user may have no connection, so it cannot become current.",
			"rabbitmqctl clear_user_limits "+fault.ShellWord(f.Account)+" max-connections", target.Double)
	}
	if err := b.checkFull(ctx, f); err != nil {
		return err
	}
	permitted, err := b.mayOpen(ctx, f.Account)
	if err == nil && !permitted {
		f.Impossible("no-permission", fmt.Sprintf("The user has no permissions in the virtual host %q, so it cannot become "+
			"current.", b.config.VHost),
			"Give it permissions with rabbitmqctl set_permissions, or name the virtual host that applications open: "+
				"keyturn rotation configure NAME --login-database=VHOST.", target.Double)
	}
	return err
}

// checkFull reports a virtual host that has as many connections as it may have.
func (b *broker) checkFull(ctx context.Context, f *target.Findings) error {
	var limits []struct {
		Value map[string]int `json:"value"`
	}
	of := url.PathEscape(b.config.VHost)
	if err := b.read(ctx, "read the limits of the virtual host at "+b.name, "/api/vhost-limits/"+of, &limits); err != nil {
		return err
	}
	for _, l := range limits {
		limit, ok := l.Value["max-connections"]
		if !ok || limit < 0 {
			continue
		}
		var open []struct{}
		path := "/api/vhosts/" + of + "/connections?columns=name"
		if err := b.read(ctx, "count the connections of the virtual host at "+b.name, path, &open); err != nil {
			return err
		}
		if len(open) >= limit {
			f.Impossible("virtual-host-full", fmt.Sprintf("The virtual host %q has %d of at most %d connections, so the user "+
				"would get none and cannot become current.", b.config.VHost, len(open), limit),
				"rabbitmqctl set_vhost_limits with a higher max-connections, or fewer connections.", target.Double)
		}
	}
	return nil
}

// rights returns the permissions, or topic-permissions, of a user without its name.
func (b *broker) rights(ctx context.Context, account, kind string) ([]map[string]string, error) {
	path, err := userPath(account)
	if err != nil {
		return nil, target.Denied.Errorf("%s: %v", b.name, err)
	}
	var list []map[string]string
	what := fmt.Sprintf("read the %s of %s at %s", kind, fault.Quoted(account), b.name)
	if err := b.read(ctx, what, path+"/"+kind, &list); err != nil {
		return nil, err
	}
	for _, p := range list {
		delete(p, "user")
	}
	return list, nil
}

// read reads a JSON document of the API.
func (b *broker) read(ctx context.Context, what, path string, into any) error {
	secrets := b.secrets(nil)
	got, err := b.request(ctx, http.MethodGet, what, path, nil, secrets)
	switch {
	case err != nil:
		return err
	case got.Status == http.StatusUnauthorized || got.Status == http.StatusForbidden:
		return answered(target.Denied, what, got, secrets)
	case got.Status != http.StatusOK:
		return answered(target.Unreachable, what, got, secrets)
	case !got.JSON || json.Unmarshal(got.Body, into) != nil:
		return target.Failed(target.Denied, rest.Code(got.Status), what+": the answer is not RabbitMQ's", secrets...)
	}
	return nil
}

// checkLinks reports parameters of the broker, such as shovels and federation upstreams, whose URIs
// have the user's name. They keep a password of their own.
func (b *broker) checkLinks(ctx context.Context, f *target.Findings) error {
	var parameters []struct {
		Component string `json:"component"`
		Name      string `json:"name"`
		VHost     string `json:"vhost"`
		Value     any    `json:"value"` // an object, or a list, such as a set of upstreams and an empty object
	}
	err := b.read(ctx, "read the parameters at "+b.name, "/api/parameters", &parameters)
	if target.ClassOf(err) == target.Denied {
		f.NeedsConsent(consentUnlinked,
			"Keyturn cannot see whether a shovel or a federation upstream logs in as the user, and would "+
				"keep its old password: "+target.TextForCaller(err)+".", b.toRead())
		return nil
	}
	if err != nil {
		return err
	}
	var links []string
	for _, p := range parameters {
		if namesUser(p.Value, f.Account) {
			links = append(links, fmt.Sprintf("%s %s in %s", target.Said(p.Component), fault.Quoted(p.Name),
				fault.Quoted(p.VHost)))
		}
	}
	if len(links) > 0 {
		slices.Sort(links)
		f.NeedsConsent(consentToLinks,
			fmt.Sprintf("Links of the broker log in with this user and keep its old password: %s.", strings.Join(links, ", ")),
			"Give the links a user of their own.")
	}
	return nil
}

// namesUser reports whether a JSON value is, or has, a URI with a user's name.
func namesUser(value any, account string) bool {
	switch v := value.(type) {
	case string:
		u, err := url.Parse(v)
		return err == nil && u.User != nil && u.User.Username() == account
	case []any:
		return slices.ContainsFunc(v, func(one any) bool { return namesUser(one, account) })
	case map[string]any:
		for _, one := range v {
			if namesUser(one, account) {
				return true
			}
		}
	}
	return false
}

// checkPartner compares the other user of strategy double with the user in use.
func (b *broker) checkPartner(
	ctx context.Context, current, partner *target.Findings, u user,
) ([]target.Finding, error) {
	other, err := b.checkUser(ctx, partner, target.Credential{}, target.Double)
	if errors.Is(err, errNoUser) {
		err = nil
	}
	if err != nil || other.Name == "" {
		return slices.Concat(current.List, partner.List), err
	}
	if err := b.checkSession(ctx, partner, other); err != nil {
		return nil, err
	}
	var differ []string
	for _, kind := range []string{"permissions", "topic-permissions"} {
		one, err := b.rights(ctx, u.Name, kind)
		if err != nil {
			return nil, err
		}
		two, err := b.rights(ctx, partner.Account, kind)
		if err != nil {
			return nil, err
		}
		if !sameSet(one, two) {
			differ = append(differ, kind)
		}
	}
	one, errOne := u.tags()
	two, errTwo := other.tags()
	if errOne != nil || errTwo != nil || !sameSet(one, two) {
		differ = append(differ, "tags")
	}
	if fmt.Sprint(u.Limits) != fmt.Sprint(other.Limits) {
		differ = append(differ, "limits")
	}
	if len(differ) > 0 {
		partner.NeedsConsent(consentToPartner,
			fmt.Sprintf("The user has other %s than %s.", strings.Join(differ, ", "), fault.Quoted(u.Name)),
			"Give both users the same with rabbitmqctl.", target.Double)
	}
	return slices.Concat(current.List, partner.List), nil
}

// sameSet compares two lists without regard to their order.
func sameSet[E any](a, b []E) bool {
	text := func(list []E) []string {
		out := make([]string, len(list))
		for i, e := range list {
			out[i] = fmt.Sprint(e)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(text(a), text(b))
}

var (
	_ target.Checker  = (*broker)(nil)
	_ target.Windower = (*broker)(nil)
)
