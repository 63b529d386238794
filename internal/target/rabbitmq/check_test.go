package rabbitmq_test

import (
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/target/rabbitmq"
)

func sha512Hash(password string) string {
	salt := "salt"
	sum := sha512.Sum512([]byte(salt + password))
	return base64.StdEncoding.EncodeToString(append([]byte(salt), sum[:]...))
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][]string{
		`{"api":"https://h:15671/","amqp":["amqps://h","amqps://[::1]:5"]}`: nil,
		`{"api":"http://h","amqp":["amqp://h"],"tls":{"off":true}}`:         nil,
		`{}`: {"api is required", "amqp is required"},
		`{"api":"http://h","amqp":["amqp://h"],"password_length":5}`:                {"api is http, which", "amqp is amqp, which sends secrets in clear; use amqps", "password_length"},
		`{"api":"https://h?x","amqp":["h:5671","amqps://u:p@h","amqps://h/vhost"]}`: {"api has a query", `"h:5671" does not begin with`, "amqp holds a user", "is more than host and port"},
		`{"api":"https://h","amqp":["amqps://h:0"]}`:                                {`"0" is not a port`},
		`{"api":"https://h","amqp":["amqps://h"],"tls":{"off":true}}`:               {"api is https and tls has off", "amqp is amqps and tls has off"},
		`{"api":"https://h","amqp":["amqps://h"],"whoami":true}`:                    {`there is no setting "whoami"`},
	} {
		err := rabbitmq.Kind().Check([]byte(config))
		if want == nil && err != nil || want != nil && err == nil {
			t.Errorf("%s: %v", config, err)
		}
		for _, text := range want {
			if !strings.Contains(fmt.Sprint(err), text) {
				t.Errorf("%s: %v does not say %q", config, err, text)
			}
		}
	}
}
