package applications

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// redisClients work with keys that begin with the application's name and with "shared:".
var redisClients = []client{
	{name: "redis-cli", program: "redis-cli", debian: "redis-tools", work: redisCLI},
}

// redisProbes have "{}" for the application's name.
var redisProbes = []string{
	"PING",
	"SET {}:1 one", "GET {}:1", "GET shared:1", "SETRANGE shared:1 0 o", "DEL {}:1", "STRLEN shared:1",
	"EVAL 'return 1' 0",
	"SORT {}:none BY nosort", "PUBLISH {}:news hello", "PUBLISH other hello", "KEYS {}:none", "CONFIG GET maxmemory",
	"ACL LIST",
	"MULTI", "GET {}:1", "EXEC",
}

// redisCLI does its work in one session. redis-cli takes the password from its environment.
func redisCLI(ctx context.Context, c Config, v Value) (Outcome, error) {
	host, port, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, err
	}
	args := []string{"-h", host, "-p", port, "--user", v.AccountName, "--no-auth-warning"}
	if c.CA != "" {
		args = append(args, "--tls", "--cacert", c.CA)
	}
	if c.Certificate != "" {
		args = append(args, "--cert", c.Certificate, "--key", c.Key)
	}
	if c.Database != "" {
		args = append(args, "-n", c.Database)
	}
	answer, err := program{
		name:  "redis-cli",
		args:  args,
		env:   []string{"REDISCLI_AUTH=" + v.AccountPassword},
		input: strings.ReplaceAll(strings.Join(redisProbes, "\n"), "{}", c.Name) + "\n",
	}.run(ctx)
	if err != nil {
		return nil, err
	}
	text := line(answer.errors+answer.out, v.AccountName)
	switch {
	case strings.Contains(text, "Could not connect") || text == "":
		return nil, fmt.Errorf("no connection: %s", text)
	// A user without the right to PING has logged in all the same.
	case strings.Contains(text, "AUTH failed") || strings.Contains(text, "NOAUTH"):
		first, _, _ := strings.Cut(answer.errors+answer.out, "\n")
		return Outcome{Login: line(first, v.AccountName)}, nil
	}
	return Outcome{Login: In, "work": text}, nil
}

func openRedis(ctx context.Context, c Config, v Value) (func() error, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(conn, "*3\r\n")
	for _, word := range []string{"AUTH", v.AccountName, v.AccountPassword} {
		fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(word), word)
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if strings.HasPrefix(answer, "+OK") {
		return conn.Close, nil
	}
	_ = conn.Close()
	if strings.HasPrefix(answer, "-WRONGPASS") {
		return nil, ErrRejected
	}
	return nil, errors.Join(errors.New("no answer of the Redis server"), err)
}
