package sqlauth_test

import (
	"context"
	"database/sql/driver"
	"fmt"
	"log"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/keyturn/keyturn/consumer"
	"github.com/keyturn/keyturn/consumer/consumertest"
	"github.com/keyturn/keyturn/consumer/credential"
	"github.com/keyturn/keyturn/consumer/sqlauth"
)

// secrets returns the Consumer of an application. The example of package consumer shows how to make
// one for a server.
func secrets() *consumer.Consumer {
	endpoint := &consumertest.Endpoint{}
	endpoint.Put("db_cred", "v1", `{"user":"app","password":"correct horse"}`)
	c, err := consumer.New(context.Background(), consumer.Config{Client: endpoint})
	if err != nil {
		log.Fatal(err)
	}
	return c
}

func Example() {
	c := secrets()
	defer c.Close()

	open := func(cred credential.Credential) (driver.Connector, error) {
		config := mysql.NewConfig()
		config.Net, config.Addr, config.DBName = "tcp", "db.example.com:3306", "app"
		config.User, config.Passwd = cred.Account, cred.Secret.Reveal()
		return mysql.NewConnector(config)
	}
	db, err := sqlauth.OpenDB(c, "db_cred", open, &sqlauth.Options{DrainWithin: 10 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close() // use it as any other: no rotation makes a query fail
	fmt.Println("open connections:", db.Stats().OpenConnections)
	// Output: open connections: 0
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
	_ = open // an argument of OpenDB
}
