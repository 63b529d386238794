package applications

import (
	"errors"
	"strconv"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
)

// failed stands for an error that is no answer of a server.
const failed = "failed"

// code is what a server answered, without words that differ between accounts.
func code(err error) string {
	if answer, ok := errors.AsType[*pgconn.PgError](err); ok {
		return answer.Code
	}
	if answer, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return strconv.Itoa(int(answer.Number))
	}
	if err != nil {
		return failed
	}
	return "done"
}
