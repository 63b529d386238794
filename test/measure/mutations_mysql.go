package main

// mysqlMutations break the rules of MySQL and MariaDB.
var mysqlMutations = []mutation{
	{
		name: "a rotation changes a MySQL account of another application",
		file: "internal/target/mysql/accounts.go",
		old:  "return accept, nil",
		new:  "return all, nil",
		pkg:  "internal/target/mysql",
		test: "TestMembers",
	},
	{
		name: "a change that has reached some MySQL accounts counts as made",
		file: "internal/target/mysql/accounts.go",
		old:  "case opens < len(accept):",
		new:  "case opens < 0*len(accept):",
		pkg:  "internal/target/mysql",
		test: "TestPartialChange",
	},
	{
		name: "a rotation changes the plugin of a MariaDB account",
		file: "internal/target/mysql/statements.go",
		old:  "m.hash = hash\n\t\t}",
		new:  "m = method{native, hash[:0] + nativeHash(candidate)}\n\t\t}",
		pkg:  "internal/target/mysql",
		test: "TestMariaDBStatements",
	},
	{
		name: "overlap changes the plugin of a MariaDB account without consent",
		file: "internal/target/mysql/statements.go",
		old:  "case !change:",
		new:  "case false:",
		pkg:  "internal/target/mysql",
		test: "TestMariaDBStatements",
	},
	{
		name: "an undone rotation changes the plugin of a MariaDB account",
		file: "internal/target/mysql/statements.go",
		old:  "if found >= 0 && hasPlugin(gone, ed25519)",
		new:  "if found >= 1 && hasPlugin(gone, ed25519)",
		pkg:  "internal/target/mysql",
		test: "TestMariaDBStatements",
	},
	{
		name: "a second password of ed25519 that many clients do not reach",
		file: "internal/target/mysql/statements.go",
		old:  "[]method{{native, nativeHash(old)}}",
		new:  "keep[:1:1]",
		pkg:  "internal/target/mysql",
		test: "TestMariaDBStatements",
	},
	{
		name: "a MySQL account at its limit proves nothing",
		file: "internal/target/mysql/login.go",
		old:  "1203, 1226, // too many",
		new:  "1203, // too many",
		pkg:  "internal/target/mysql",
		test: "TestClasses",
	},
	{
		name: "a replica of MySQL decides about a credential",
		file: "internal/target/mysql/login.go",
		old:  "return t.loginAt(ctx, c, t.endpoints().Deciding())",
		new:  "return t.loginAt(ctx, c, t.endpoints())",
		pkg:  "internal/target/mysql",
		test: "TestReplica",
	},
}
