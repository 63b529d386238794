package main

// postgresqlMutations break the rules of PostgreSQL.
var postgresqlMutations = []mutation{
	{
		name: "the owner that a plan of PostgreSQL renames needs no right",
		file: "internal/target/postgresql/setup.go",
		old:  "s.others = append(s.others, owner.name)",
		new:  "",
		pkg:  "test/rotation",
		test: "TestPrepareAccountsRights",
	},
	{
		name: "accounts that only a plan of PostgreSQL names are changed without a right",
		file: "internal/api/accounts.go",
		old:  "p.gate.permits(p.Call, p.accountResources(changes{p.target.Name, others}))",
		new:  "error(nil)",
		pkg:  "test/rotation",
		test: "TestPrepareAccountsRights",
	},
	{
		name: "an owner that PostgreSQL does not have needs a right",
		file: "internal/api/accounts.go",
		old:  "	if in.OwnerName != \"\" {\n		names = append(names, in.OwnerName)\n	}",
		new:  "	names = append(names, in.OwnerName+in.AccountName+\"_owner\")",
		pkg:  "test/rotation",
		test: "TestPrepareAccountsRights",
	},
}
