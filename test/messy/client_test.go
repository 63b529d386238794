package messy

import (
	"errors"
	"strconv"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

// code is what a server answered, without words that differ between accounts.
func code(err error) string {
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return said.Code
	}
	if said, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return strconv.Itoa(int(said.Number))
	}
	if err != nil {
		return "failed"
	}
	return "done"
}
