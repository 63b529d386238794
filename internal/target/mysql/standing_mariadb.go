package mysql

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// accessBits names the bits of the member access in mysql.global_priv, from the lowest.
var accessBits = []string{
	"SELECT",
	"INSERT",
	"UPDATE",
	"DELETE",
	"CREATE",
	"DROP",
	"RELOAD",
	"SHUTDOWN",
	"PROCESS",
	"FILE",
	"GRANT OPTION",
	"REFERENCES",
	"INDEX",
	"ALTER",
	"SHOW DATABASES",
	"SUPER",
	"CREATE TEMPORARY TABLES",
	"LOCK TABLES",
	"EXECUTE",
	"REPLICATION SLAVE",
	"BINLOG MONITOR",
	"CREATE VIEW",
	"SHOW VIEW",
	"CREATE ROUTINE",
	"ALTER ROUTINE",
	"CREATE USER",
	"EVENT",
	"TRIGGER",
	"CREATE TABLESPACE",
	"DELETE HISTORY",
	"SET USER",
	"FEDERATED ADMIN",
	"CONNECTION ADMIN",
	"READ_ONLY ADMIN",
	"REPLICATION SLAVE ADMIN",
	"REPLICATION MASTER ADMIN",
	"BINLOG ADMIN",
	"BINLOG REPLAY",
	"SLAVE MONITOR",
	"SHOW CREATE ROUTINE",
}

func (mariaDB) tables() []string {
	return []string{"mysql.global_priv", "mysql.db", "mysql.tables_priv", "mysql.roles_mapping", "mysql.proxies_priv"}
}

func (mariaDB) global(ctx context.Context, conn *conn, who identity) ([]string, bool, error) {
	row, err := conn.row(ctx, "SELECT Priv FROM mysql.global_priv WHERE "+who.where("User", "Host"))
	if err != nil || row == nil {
		return nil, false, err
	}
	privileges, err := parseAccess(row[0])
	return privileges, true, err
}

// parseAccess returns the global privileges in mysql.global_priv.
func parseAccess(priv string) ([]string, error) {
	var p struct {
		Access uint64 `json:"access"`
	}
	if err := json.Unmarshal([]byte(priv), &p); err != nil {
		return nil, fmt.Errorf("%w: mysql.global_priv holds no JSON object with a number as access", errStored)
	}
	var out []string
	for bit := range 64 {
		switch {
		case p.Access&(1<<bit) == 0:
		case bit < len(accessBits):
			out = append(out, accessBits[bit])
		default:
			out = append(out, fmt.Sprintf("of number %d", bit))
		}
	}
	return out, nil
}

func (mariaDB) defaultRoles(who identity) (query, table string) {
	return "SELECT JSON_VALUE(Priv, '$.default_role') FROM mysql.global_priv WHERE " + who.where("User", "Host"),
		"mysql.global_priv"
}

// everybody returns PUBLIC, which every account has since MariaDB 10.11.
func (mariaDB) everybody(context.Context, *conn) ([]identity, error) {
	return []identity{{"PUBLIC", ""}}, nil
}

func (mariaDB) roles(to []identity) string {
	var granted []string
	for _, who := range to {
		granted = append(granted, who.where("User", "Host"))
	}
	return "SELECT Role, '', Admin_option FROM mysql.roles_mapping WHERE " + strings.Join(granted, " OR ")
}
