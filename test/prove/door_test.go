package prove

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	ldapdriver "github.com/go-ldap/ldap/v3"
	mysqldriver "github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	sshdriver "golang.org/x/crypto/ssh"

	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

// door is where a consumer logs in, by means that have nothing to do with the code under test. It
// can be sent to another process.
type door struct {
	Kind string
	Addr string
	Key  string // of an SSH host
}

// held is a value as GetSecretValue returns it; each type of secret has some of the members.
type held struct {
	AccountName, AccountPassword string
	UserName                     string
	Password, PrivateKey         string
	AccessKeyID                  string `json:"AccessKeyId"`
	AccessKeySecret              string
}

const loginTimeout = 30 * time.Second

// login tries a value once. It returns an error when the server did not answer.
func (d door) login(ctx context.Context, value string) (bool, error) {
	var h held
	if err := json.Unmarshal([]byte(value), &h); err != nil {
		return false, errors.New("the value is not JSON")
	}
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	switch d.Kind {
	case "postgresql":
		return d.postgresql(ctx, h)
	case "mariadb":
		return d.mariadb(ctx, h)
	case "redis":
		return d.redis(ctx, h)
	case "ldap":
		return d.ldap(ctx, h)
	case "ssh":
		return d.ssh(ctx, h)
	case "ram":
		return d.ram(ctx, h)
	case "rabbitmq", "webhook":
		return d.http(ctx, h)
	case "oauth":
		return d.token(ctx, h)
	case "command":
		return d.file(h)
	}
	return false, fmt.Errorf("no door of kind %q", d.Kind)
}

func (d door) postgresql(ctx context.Context, h held) (bool, error) {
	config, err := pgx.ParseConfig("postgres://" + d.Addr + "/postgres?sslmode=disable")
	if err != nil {
		return false, err
	}
	config.User, config.Password = h.AccountName, h.AccountPassword
	conn, err := pgx.ConnectConfig(ctx, config)
	if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "28P01" {
		return false, nil
	}
	if err != nil {
		return false, errors.New("PostgreSQL did not answer")
	}
	return true, conn.Close(ctx)
}

func (d door) mariadb(ctx context.Context, h held) (bool, error) {
	config := mysqldriver.NewConfig()
	config.Net = "tcp"
	config.Addr = d.Addr
	config.User = h.AccountName
	config.Passwd = h.AccountPassword
	config.Logger = &mysqldriver.NopLogger{}
	connector, err := mysqldriver.NewConnector(config)
	if err != nil {
		return false, err
	}
	conn, err := connector.Connect(ctx)
	if said, ok := errors.AsType[*mysqldriver.MySQLError](err); ok && (said.Number == 1045 || said.Number == 1698) {
		return false, nil
	}
	if err != nil {
		return false, errors.New("MariaDB did not answer")
	}
	return true, conn.Close()
}

// dial connects with the deadline of the context.
func (d door) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", d.Addr)
	if err != nil {
		return nil, err
	}
	if at, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(at)
	}
	return conn, err
}

func (d door) redis(ctx context.Context, h held) (bool, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	fmt.Fprint(conn, "*3\r\n")
	for _, word := range []string{"AUTH", h.AccountName, h.AccountPassword} {
		fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(word), word)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	switch {
	case strings.HasPrefix(line, "+OK"):
		return true, nil
	case strings.HasPrefix(line, "-WRONGPASS"):
		return false, nil
	}
	return false, errors.Join(errors.New("Redis did not answer"), err)
}

func (d door) ldap(ctx context.Context, h held) (bool, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return false, err
	}
	c := ldapdriver.NewConn(conn, false)
	c.Start()
	defer c.Close()
	err = c.Bind(h.AccountName, h.AccountPassword)
	if ldapdriver.IsErrorAnyOf(err, ldapdriver.LDAPResultInvalidCredentials) {
		return false, nil
	}
	return err == nil, err
}

func (d door) ssh(ctx context.Context, h held) (bool, error) {
	auth := sshdriver.Password(h.Password)
	if h.PrivateKey != "" {
		key, err := sshdriver.ParsePrivateKey([]byte(h.PrivateKey))
		if err != nil {
			return false, errors.New("the value holds no key")
		}
		auth = sshdriver.PublicKeys(key)
	}
	host, _, _, _, err := sshdriver.ParseAuthorizedKey([]byte(d.Key))
	if err != nil {
		return false, err
	}
	conn, err := d.dial(ctx)
	if err != nil {
		return false, err
	}
	c, channels, requests, err := sshdriver.NewClientConn(conn, d.Addr, &sshdriver.ClientConfig{
		User: h.UserName, Auth: []sshdriver.AuthMethod{auth}, HostKeyCallback: sshdriver.FixedHostKey(host),
	})
	if err != nil {
		_ = conn.Close()
		if strings.Contains(err.Error(), "unable to authenticate") {
			return false, nil
		}
		return false, errors.New("the SSH host did not answer")
	}
	return true, sshdriver.NewClient(c, channels, requests).Close()
}

// ram asks the service itself who one is.
func (d door) ram(ctx context.Context, h held) (bool, error) {
	c, err := kms.NewClient(kms.Config{
		Endpoint:    "http://" + d.Addr,
		Credentials: sign.Credentials{AccessKeyID: h.AccessKeyID, AccessKeySecret: sensitive.New(h.AccessKeySecret)},
	})
	if err != nil {
		return false, err
	}
	_, err = c.GetCallerIdentity(ctx, &kms.GetCallerIdentityRequest{})
	if said, ok := errors.AsType[*kms.Error](err); ok && said.HTTPStatus < http.StatusInternalServerError {
		return false, nil
	}
	return err == nil, err
}

// http asks an endpoint of RabbitMQ, or of a service of this test, who one is.
func (d door) http(ctx context.Context, h held) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.Addr+"/api/whoami", nil)
	if err != nil {
		return false, err
	}
	req.SetBasicAuth(h.AccountName, h.AccountPassword)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.StatusCode == http.StatusOK, nil
}

// token asks an OAuth 2.0 provider for one, by the client credentials grant.
func (d door) token(ctx context.Context, h held) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+d.Addr+"/oauth2/token",
		strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(h.AccountName), url.QueryEscape(h.AccountPassword))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	return resp.StatusCode == http.StatusOK, nil
}

// file is the service of examples/command-target: it reads the file of keys as it is now.
func (d door) file(h held) (bool, error) {
	b, err := os.ReadFile(d.Addr)
	line := fmt.Sprintf("%q\t%x", h.AccountName, sha256.Sum256([]byte(h.AccountPassword)))
	return slices.Contains(strings.Split(string(b), "\n"), line), err
}
