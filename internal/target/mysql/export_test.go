package mysql

// NativeHash is for tests that make accounts.
var NativeHash = nativeHash

// MatchesHost is matchesHost of the server of a kind.
func MatchesHost(kind, pattern, host string) bool {
	return server{name: map[string]string{"mariadb": "MariaDB", "mysql": "MySQL"}[kind]}.matchesHost(pattern, host)
}
