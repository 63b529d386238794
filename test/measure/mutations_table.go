package main

// mutations break the rules whose copies once drifted apart. Each row names the test that shows the rule.
var mutations = []mutation{
	{
		name: "an operation may no longer be granted by a secret's policy",
		file: "kms/table.go",
		old:  ".Grantable()",
		each: true,
		pkg:  "internal/protocol",
		test: "TestSecretPoliciesReachEveryOperation",
	},
	{
		name: "an operation on a secret's policy is like any other",
		file: "kms/table.go",
		old:  ".Repairs()",
		each: true,
		pkg:  "internal/protocol",
		test: "TestSecretPoliciesReachEveryOperation",
	},
	{
		name:   "the name of a secret names no resource",
		file:   "kms/secret.go",
		old:    ",resource=secret",
		each:   true,
		pkg:    "internal/protocol",
		panics: "no resource",
	},
	{
		name: "a right on everything includes an operation on the server itself",
		file: "kms/table.go",
		old:  ".ByName()",
		each: true,
		pkg:  "internal/protocol",
		test: "TestRights",
	},
	{
		name: "an operation that changes something is recorded as a read",
		file: "kms/table.go",
		old:  ".Mutates()",
		each: true,
		pkg:  "internal/protocol",
		test: "TestWhatReads",
	},
	{
		name:   "an operation has no handler",
		file:   "internal/api/table.go",
		old:    "	handle(\"GetSecretValue\", getSecretValue),\n",
		pkg:    "internal/api",
		panics: "operation GetSecretValue has no handler",
	},
	{
		name: "a code of the user service has no status",
		file: "internal/protocol/codes.go",
		old:  "ram.CodePolicyType:",
		new:  "ram.CodePolicyType + \"x\":",
		pkg:  "internal/protocol",
		test: "TestOwnCodes",
	},
	{
		name: "an audit record lacks its source",
		file: "internal/audit/audit.go",
		old:  "{`\"source\":`, r.Source}",
		new:  `{"", ""}`,
		pkg:  "internal/audit",
		test: "FuzzMembers",
	},
}
