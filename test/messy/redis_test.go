package messy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/test/applications"
	"github.com/keyturn/keyturn/test/servers"
	"github.com/keyturn/keyturn/test/support"
)

func TestRedis(t *testing.T) {
	t.Parallel()
	applications.Require(t, "redis")
	all := startRedisSites(t)
	admin := pair{"keyturn", "password-of-the-administrator"}
	for _, server := range all.servers {
		// The page of the kind grants this, and no more.
		server.Do(t, "ACL", "SETUSER", admin.AccountName, "on", ">"+admin.AccountPassword, "resetkeys", "resetchannels",
			"-@all", "+acl|getuser", "+acl|setuser", "+acl|save", "+config|rewrite", "+info", "+cluster|nodes")
	}
	p := player{product: start(t, "redis", compact(admin)), label: "messy_redis"}
	p.put(t, "client-pem", all.certificate)
	p.build = func(t *testing.T, s *scene, r *rand.Rand) { all.build(t, p.product, s, r) }
	p.play(t)
}

// redisSites are the servers that all scenes share.
type redisSites struct {
	servers []*servers.Redis
	// places has the servers by what is unusual about them.
	places map[string][]*servers.Redis
	// certificate is a client certificate with its key, for the first server.
	certificate string
}

const (
	aclFile       = "an ACL file"
	configFile    = "users in the configuration file"
	threeNodes    = "several nodes without replication"
	withReplica   = "a replica"
	hiddenReplica = "a replica that the target does not name"
	withCluster   = "a cluster"
	hiddenCluster = "a cluster of which the target names one node"
)

func startRedisSites(t *testing.T) *redisSites {
	t.Helper()
	one, two := servers.StartRedis(t, servers.WithACLFile), servers.StartRedis(t)
	master := servers.StartRedis(t, servers.WithACLFile, "repl-diskless-sync-delay 0")
	host, port, err := net.SplitHostPort(master.Addr)
	good(t, err)
	replica := servers.StartRedis(t, "replicaof "+host+" "+port, "masterauth "+master.Password)
	first, other := servers.StartRedis(t, "cluster-enabled yes"), servers.StartRedis(t, "cluster-enabled yes")
	first.Do(t, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	host, port, err = net.SplitHostPort(other.Addr)
	good(t, err)
	_, bus, err := net.SplitHostPort(other.Bus)
	good(t, err)
	first.Do(t, "CLUSTER", "MEET", host, port, bus)
	support.Until(t, "the replica and the cluster", func() bool {
		return strings.Contains(fmt.Sprint(master.Do(t, "INFO", "replication")), "state=online") &&
			strings.Contains(fmt.Sprint(first.Do(t, "CLUSTER", "INFO")), "cluster_state:ok") &&
			strings.Contains(fmt.Sprint(other.Do(t, "CLUSTER", "INFO")), "cluster_state:ok")
	})
	for _, server := range []*servers.Redis{one, two, master, first} {
		server.Do(t, "SET", "shared:1", "one")
		if server != first { // a cluster has one database
			server.Do(t, "EVAL", "redis.call('select', 3); return redis.call('set', 'shared:1', 'one')", "0")
		}
	}
	cert, err := os.ReadFile(one.Authority.CertFile)
	good(t, err)
	key, err := os.ReadFile(one.Authority.KeyFile)
	good(t, err)
	return &redisSites{
		servers:     []*servers.Redis{one, two, master, replica, first, other},
		certificate: string(cert) + string(key),
		places: map[string][]*servers.Redis{
			aclFile:       {one},
			configFile:    {two},
			threeNodes:    {one, two},
			withReplica:   {master, replica},
			hiddenReplica: {master},
			withCluster:   {first, other},
			hiddenCluster: {first},
		},
	}
}

// redisScene is a scene with the servers where its user is.
type redisScene struct {
	*scene
	all       *redisSites
	nodes     []*servers.Redis
	app       string
	password  string
	settings  map[string]any
	policy    []string
	configure kms.ConfigureRotationRequest
}

// user makes a user with rules at every node, and saves it.
func (s *redisScene) user(t *testing.T, name string, rules []string) {
	t.Helper()
	for _, server := range s.nodes {
		args := []any{"ACL", "SETUSER", name}
		for _, rule := range rules {
			args = append(args, rule)
		}
		server.Do(t, args...)
		saveUsers(t, server)
	}
}

func saveUsers(t *testing.T, server *servers.Redis) {
	t.Helper()
	if usersOf(server) == server.Config {
		server.Do(t, "CONFIG", "REWRITE")
	} else {
		server.Do(t, "ACL", "SAVE")
	}
}

// usersOf returns the file where a server saves its users.
func usersOf(server *servers.Redis) string {
	file := filepath.Join(server.ACLDir, "users.acl")
	if _, err := os.Stat(file); err != nil {
		return server.Config
	}
	return file
}

func (all *redisSites) build(t *testing.T, p *product, scene *scene, r *rand.Rand) {
	s := &redisScene{scene: scene, all: all, app: "app-" + scene.name, password: "first-password-of-" + scene.name}
	place := s.one(r, "servers", aclFile, aclFile, configFile, configFile, threeNodes, threeNodes, withReplica,
		withCluster, hiddenReplica, hiddenCluster)
	s.nodes = all.places[place]
	s.strategy = []target.Strategy{target.Overlap, target.Overlap, target.Double}[r.IntN(3)]
	s.first = compact(pair{s.app, s.password})
	s.configure = kms.ConfigureRotationRequest{
		TargetName:  s.name,
		Strategy:    string(s.strategy),
		GracePeriod: "1h",
		AccountName: s.app,
	}
	if (place == hiddenReplica || place == hiddenCluster) && s.trait(r, 2, "consent to it") {
		s.configure.Consents = append(s.configure.Consents, "nodes-not-named")
	}
	other := s.makeUsers(t, r)
	s.connect(t, r)
	s.spoil(t, r)
	good(t, second(p.RegisterTarget(t.Context(), &kms.RegisterTargetRequest{
		TargetName:      s.name,
		Kind:            p.kind,
		Config:          compact(s.settings),
		AdminSecretName: p.admin,
		Accounts:        s.policy,
	})))
	s.attach = func() (string, error) { return p.configure(t, s.first, s.configure) }
	s.scene.also = func(ctx context.Context, value string, out outcome) error { return s.also(t, ctx, value, other, out) }
}

// makeUsers makes the user of the application, and the second one of strategy double. It returns
// the password that another team uses with the same user; empty for none.
func (s *redisScene) makeUsers(t *testing.T, r *rand.Rand) (other string) {
	rules := []string{"on"}
	add := func(text string) {
		rules = append(rules, strings.Fields(strings.ReplaceAll(text, "{}", s.name))...)
	}
	add(s.one(r, "keys", "~{}:*", "~*", "%R~shared:* ~{}:*", "%W~{}:* %R~{}:*"))
	add(s.one(r, "commands", "+@read +@write", "+@all -@dangerous", "+get +set +del", "+@all -@admin -@dangerous -eval"))
	add(s.one(r, "channels", "resetchannels", "&{}:*", "allchannels"))
	if s.trait(r, 3, "a selector") {
		rules = append(rules, "(+@read ~shared:*)", "(+strlen ~*)")
	}
	if s.trait(r, 4, "sanitize-payload off") {
		add("skip-sanitize-payload")
	}
	if s.trait(r, 6, "the user is privileged") {
		add(s.one(r, "power", "+config|get", "+@all -acl|list", "+monitor"))
		if !s.trait(r, 4, "and the account policy does not name it") {
			s.policy = []string{s.app, s.app + "-clone"}
		}
	}
	if s.trait(r, 3, "another team's password") {
		other = "password-of-the-other-team-of-" + s.name
		add(">" + other)
	}
	if s.trait(r, 3, "the password is stored as a hash") {
		add(fmt.Sprintf("#%x", sha256.Sum256([]byte(s.password))))
	} else {
		add(">" + s.password)
	}
	s.user(t, s.app, rules)
	if s.strategy == target.Double {
		s.configure.CloneAccountName = s.app + "-clone"
		s.user(t, s.app+"-clone", append(rules, "resetpass", ">another-password-of-"+s.name))
		other = "" // it is a password of one of the two users
	}
	if len(s.nodes) > 1 && s.trait(r, 4, "rules that differ between nodes") {
		for _, user := range []string{s.app, s.configure.CloneAccountName} {
			if user != "" {
				s.nodes[1].Do(t, "ACL", "SETUSER", user, "(+get ~more:*)")
			}
		}
	}
	return other
}

// connect decides how the application and the product connect.
func (s *redisScene) connect(t *testing.T, r *rand.Rand) {
	app := applications.Config{Kind: "redis", Address: s.nodes[0].Addr, Name: s.name}
	tls := map[string]any{"off": true}
	addresses := []string{}
	for _, server := range s.nodes {
		addresses = append(addresses, server.Addr)
	}
	if len(s.nodes) == 1 && s.nodes[0] == s.all.servers[0] && s.trait(r, 3, "TLS with a client certificate") {
		of := s.nodes[0].Authority
		app.Address, app.CA, app.Certificate, app.Key = s.nodes[0].TLSAddr, of.CAFile, of.CertFile, of.KeyFile
		tls, addresses = map[string]any{"ca": of.CA}, []string{s.nodes[0].TLSAddr}
		s.configure.LoginCertificateSecret = "client-pem"
	}
	s.settings = map[string]any{"nodes": addresses, "tls": tls}
	if s.trait(r, 4, "the way of saving is named") {
		s.settings["persist"] = "acl-save"
		if usersOf(s.nodes[0]) == s.nodes[0].Config {
			s.settings["persist"] = "config-rewrite"
		}
		if len(s.nodes) > 1 { // its nodes differ
			delete(s.settings, "persist")
		}
	}
	if s.strategy == target.Overlap && s.trait(r, 5, "a database of its own") {
		app.Database, s.configure.LoginDatabase = "3", "3"
	}
	if len(addresses) > 1 && s.trait(r, 4, "the application knows one node") {
		s.configure.LoginEndpoints = addresses[:1]
	}
	s.scene.app = applications.New(app)
}

// spoil makes one thing wrong in some scenes, which the product must find.
func (s *redisScene) spoil(t *testing.T, r *rand.Rand) {
	at := s.nodes[len(s.nodes)-1]
	switch {
	case s.trait(r, 30, "a node is down"):
		s.settings["nodes"] = append(s.settings["nodes"].([]string), "127.0.0.1:1")
	case len(s.nodes) > 1 && s.trait(r, 25, "the user is off at a node"):
		at.Do(t, "ACL", "SETUSER", s.app, "off")
	case len(s.nodes) > 1 && s.trait(r, 25, "the user is missing at a node"):
		at.Do(t, "ACL", "DELUSER", s.app)
	case len(s.nodes) > 1 && s.trait(r, 25, "a node has an older password"):
		at.Do(t, "ACL", "SETUSER", s.app, "resetpass", ">an-older-password-of-"+s.name)
	case len(s.nodes) > 1 && s.trait(r, 25, "a node takes any password"):
		at.Do(t, "ACL", "SETUSER", s.app, "nopass")
	default:
		return
	}
	saveUsers(t, at) // otherwise the rotation of another scene would save it at some time
}

// also adds what the administrator sees at each node, and whether the other team still logs in.
func (s *redisScene) also(t *testing.T, ctx context.Context, value, other string, out outcome) error {
	t.Helper()
	a, err := applications.Parse(value)
	good(t, err)
	for i, server := range s.nodes {
		rules, passwords := accountOf(t, server, a.AccountName)
		out[fmt.Sprintf("account at node %d", i+1)] = rules
		if !savedAt(t, server, a.AccountName, passwords) {
			out[fmt.Sprintf("node %d after a restart", i+1)] = "has other passwords"
		}
	}
	if other == "" {
		return nil
	}
	in, err := s.scene.app.Login(ctx, compact(pair{s.app, other}))
	out["the other team"] = fmt.Sprint(in)
	return err
}

// accountOf returns what the administrator sees of a user, and its passwords apart.
func accountOf(t *testing.T, server *servers.Redis, name string) (text string, passwords []string) {
	t.Helper()
	fields, ok := server.Do(t, "ACL", "GETUSER", name).([]any)
	if !ok {
		return "none", nil
	}
	rules := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		if field := fmt.Sprint(fields[i]); field != "passwords" {
			rules[field] = fmt.Sprint(fields[i+1])
			continue
		}
		hashes, _ := fields[i+1].([]any)
		for _, h := range hashes {
			passwords = append(passwords, "#"+fmt.Sprint(h))
		}
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		lines = append(lines, name+" "+rules[name])
	}
	slices.Sort(passwords)
	return strings.Join(lines, "; "), passwords
}

// savedAt reports whether a server has saved the passwords that a user has.
func savedAt(t *testing.T, server *servers.Redis, name string, passwords []string) bool {
	t.Helper()
	text, err := os.ReadFile(usersOf(server))
	good(t, err)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "user" || words[1] != name {
			continue
		}
		saved := slices.DeleteFunc(words, func(word string) bool { return !strings.HasPrefix(word, "#") })
		slices.Sort(saved)
		return slices.Equal(saved, passwords)
	}
	return false
}
