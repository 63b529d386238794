package sqlauth_test

import (
	"context"
	"database/sql/driver"
	"log"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/sqlauth"
	"github.com/keyturn/keyturn/kms"
	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

func Example() {
	ctx := context.Background()
	client, err := consumer.NewClient(kms.Config{
		Endpoint: "keyturn.example.com", Credentials: sign.Credentials{AccessKeyID: "id", AccessKeySecret: sensitive.New("secret")},
	})
	if err != nil {
		log.Fatal(err)
	}
	c, err := consumer.New(ctx, consumer.Config{Client: client, Secrets: []string{"db_cred"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	db, err := sqlauth.OpenDB(c, "db_cred", func(cred credential.Credential) (driver.Connector, error) {
		config := mysql.NewConfig()
		config.Net, config.Addr, config.DBName = "tcp", "db.example.com:3306", "app"
		config.User, config.Passwd = cred.Account, cred.Secret.Reveal()
		return mysql.NewConnector(config)
	}, &sqlauth.Options{DrainWithin: 10 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	var one int
	if err := db.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil { // no rotation makes this fail
		log.Fatal(err)
	}
}

// With pgx.
func ExampleOpen() {
	base, err := pgx.ParseConfig("host=db.example.com dbname=app sslmode=verify-full")
	if err != nil {
		log.Fatal(err)
	}
	var open sqlauth.Open = func(cred credential.Credential) (driver.Connector, error) {
		config := base.Copy()
		config.User, config.Password = cred.Account, cred.Secret.Reveal()
		return stdlib.GetConnector(*config), nil
	}
	_ = open // for OpenDB
}
