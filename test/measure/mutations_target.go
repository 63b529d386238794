package main

// targetMutations break the rules of all kinds of target.
var targetMutations = []mutation{
	{
		name: "a target sends without end",
		file: "internal/target/received.go",
		old:  "c.left -= int64(n)",
		new:  "_ = n",
		pkg:  "internal/target",
		test: "TestBoundedConnectionEnds",
	},
	{
		name: "a reply of Redis has any number of elements",
		file: "internal/target/redis/replies.go",
		old:  "len(r.open) > maxDepth || r.elements > maxElements",
		new:  "len(r.open) > maxDepth",
		pkg:  "internal/target/redis",
		test: "TestRepliesAreBounded",
	},
	{
		name: "a finding shows what a terminal obeys",
		file: "internal/target/check.go",
		old:  "*text = cleanTo(maxFindingText, *text, secrets)",
		new:  "_, _ = text, secrets",
		pkg:  "internal/target",
		test: "TestFindingsAreClean",
	},
	{
		name: "guesses through new secrets are not limited",
		file: "internal/api/login_limit.go",
		old:  "	l.until[w] = next\n	return",
		new:  "	return",
		pkg:  "internal/api",
		test: "TestGuessesAreFew",
	},
	{
		name: "simultaneous checks log in at the same time",
		file: "internal/api/login_limit.go",
		old:  "	l.until[w] = next\n	return",
		new:  "	return",
		pkg:  "internal/api",
		test: "TestChecksAtTheSameTime",
	},
	{
		name: "a rejected administrator is tried by every call",
		file: "internal/api/login_limit.go",
		old:  "if c.op == nil { // the engine",
		new:  "if c.op != nil { // the engine",
		pkg:  "internal/api",
		test: "TestRejectedAdministratorIsNotTriedAgain",
	},
	{
		name: "an access key that is switched off is replaced by an active one",
		file: "internal/api/own_users_check.go",
		old:  "case key.Disabled:",
		new:  "case key.Disabled && key.ID == \"\":",
		pkg:  "internal/api",
		test: "TestCheckOfOwnUsers",
	},
}
