package cli

import (
	"github.com/keyturn/keyturn/internal/target"
	"github.com/keyturn/keyturn/internal/target/command"
	"github.com/keyturn/keyturn/internal/target/ldap"
	"github.com/keyturn/keyturn/internal/target/mysql"
	"github.com/keyturn/keyturn/internal/target/oauth"
	"github.com/keyturn/keyturn/internal/target/postgresql"
	"github.com/keyturn/keyturn/internal/target/rabbitmq"
	"github.com/keyturn/keyturn/internal/target/redis"
	"github.com/keyturn/keyturn/internal/target/ssh"
	"github.com/keyturn/keyturn/internal/target/webhook"
)

// TargetKinds returns every kind of target that keyturn has. Tests take it for "every kind": one
// without a page in docs/targets or a proof in test/prove fails.
func TargetKinds(commands command.Config) []target.Kind {
	return []target.Kind{
		postgresql.Kind(),
		mysql.MySQL(),
		mysql.MariaDB(),
		redis.Kind(),
		ssh.Kind(),
		ldap.Kind(),
		oauth.Kind(),
		rabbitmq.Kind(),
		webhook.Kind(),
		command.Kind(commands),
	}
}
