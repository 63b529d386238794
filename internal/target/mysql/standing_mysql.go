package mysql

import (
	"context"
	"strings"
)

// userColumns lists the columns of mysql.user for global privileges, and the privilege of each.
var userColumns = []struct{ column, privilege string }{
	{"Select_priv", "SELECT"},
	{"Insert_priv", "INSERT"},
	{"Update_priv", "UPDATE"},
	{"Delete_priv", "DELETE"},
	{"Create_priv", "CREATE"},
	{"Drop_priv", "DROP"},
	{"Reload_priv", "RELOAD"},
	{"Shutdown_priv", "SHUTDOWN"},
	{"File_priv", "FILE"},
	{"Grant_priv", "GRANT OPTION"},
	{"Index_priv", "INDEX"},
	{"Alter_priv", "ALTER"},
	{"Super_priv", "SUPER"},
	{"Execute_priv", "EXECUTE"},
	{"Repl_slave_priv", "REPLICATION SLAVE"},
	{"Create_view_priv", "CREATE VIEW"},
	{"Create_routine_priv", "CREATE ROUTINE"},
	{"Alter_routine_priv", "ALTER ROUTINE"},
	{"Create_user_priv", "CREATE USER"},
	{"Event_priv", "EVENT"},
	{"Trigger_priv", "TRIGGER"},
	{"Create_tablespace_priv", "CREATE TABLESPACE"},
	{"Create_role_priv", "CREATE ROLE"},
	{"Drop_role_priv", "DROP ROLE"},
}

func (mySQL) tables() []string {
	return []string{
		"mysql.user",
		"mysql.global_grants",
		"mysql.db",
		"mysql.tables_priv",
		"mysql.role_edges",
		"mysql.proxies_priv",
	}
}

func (mySQL) global(ctx context.Context, conn *conn, who identity) ([]string, bool, error) {
	var columns []string
	for _, c := range userColumns {
		columns = append(columns, c.column)
	}
	row, err := conn.row(ctx, "SELECT "+strings.Join(columns, ", ")+" FROM mysql.user WHERE "+who.where("User", "Host"))
	if err != nil || row == nil {
		return nil, false, err
	}
	var out []string
	for i, c := range userColumns {
		if row[i] == "Y" {
			out = append(out, c.privilege)
		}
	}
	query := "SELECT PRIV FROM mysql.global_grants WHERE " + who.where("USER", "HOST") + " ORDER BY PRIV"
	dynamic, err := conn.rows(ctx, query)
	for _, row := range dynamic {
		out = append(out, row[0])
	}
	return out, true, err
}

func (mySQL) defaultRoles(who identity) (query, table string) {
	return "SELECT DEFAULT_ROLE_USER FROM mysql.default_roles WHERE " + who.where("USER", "HOST") + " ORDER BY 1",
		"mysql.default_roles"
}

// everybody returns the mandatory roles, which the server stores as `role1`@`%`,role2.
func (mySQL) everybody(ctx context.Context, conn *conn) ([]identity, error) {
	row, err := conn.row(ctx, "SELECT @@GLOBAL.mandatory_roles")
	if err != nil || len(row) == 0 {
		return nil, err
	}
	var out []identity
	for item := range strings.SplitSeq(row[0], ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		user, host, ok := strings.Cut(item, "@")
		if !ok {
			host = "%"
		}
		out = append(out, identity{strings.Trim(user, "`'\" "), strings.Trim(host, "`'\" ")})
	}
	return out, nil
}

func (mySQL) roles(to []identity) string {
	var granted []string
	for _, who := range to {
		granted = append(granted, who.where("TO_USER", "TO_HOST"))
	}
	return "SELECT FROM_USER, FROM_HOST, WITH_ADMIN_OPTION FROM mysql.role_edges WHERE " + strings.Join(granted, " OR ")
}
