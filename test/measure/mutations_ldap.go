package main

// ldapMutations break the rules of LDAP directories.
var ldapMutations = []mutation{
	{
		name: "a finding of LDAP has no row in its page",
		file: "internal/target/ldap/check.go",
		old:  `f.Impossible("scheme-server"`,
		new:  `f.Impossible("scheme-of-server"`,
		pkg:  "internal/cli",
		test: "TestEveryFindingHasARow",
	},
	{
		name: "a password of a directory takes another scheme",
		file: "internal/target/ldap/ldap.go",
		old:  "value, err = like(example, c)",
		new:  "value, err = hashed(schemeCrypt, c), nil",
		pkg:  "internal/target/ldap",
		test: "TestKeepsForms",
	},
	{
		name: "a replica of a directory decides about a password",
		file: "internal/target/ldap/ldap.go",
		old:  "d.application.At(d.LoginEndpoints()).Deciding()",
		new:  "d.application.At(d.LoginEndpoints())",
		pkg:  "internal/target/ldap",
		test: "TestCopies",
	},
	{
		name: "a password in clear of a directory is not kept in clear",
		file: "internal/target/ldap/ldap.go",
		old:  "if isClear(example) && slices.Contains(d.consent, consentToHash) {",
		new:  "if isClear(example) {",
		pkg:  "internal/target/ldap",
		test: "TestKeepsForms",
	},
	{
		name: "the consent to a hash keeps a password in clear",
		file: "internal/target/ldap/ldap.go",
		old:  "if isClear(example) && slices.Contains(d.consent, consentToHash) {",
		new:  "if false {",
		pkg:  "internal/target/ldap",
		test: "TestCheckSASL",
	},
	{
		name: "a check passes a password that is too young to be changed",
		file: "internal/target/ldap/check.go",
		old:  "young.After(time.Now())",
		new:  "false",
		pkg:  "internal/target/ldap",
		test: "TestLDAP",
	},
	{
		name: "a policy that the administrator cannot read is no policy",
		file: "internal/target/ldap/check.go",
		old:  "\tcase err != nil, len(result.Entries) != 1:\n",
		new:  "\tcase err != nil, len(result.Entries) != 1:\n\t\treturn nil\n",
		pkg:  "internal/target/ldap",
		test: "TestLDAP",
	},
	{
		name: "a default policy that the administrator cannot read is no policy",
		file: "internal/target/ldap/check.go",
		old:  "if !database.read && source.possible {",
		new:  "if false {",
		pkg:  "internal/target/ldap",
		test: "TestLDAP",
	},
}
