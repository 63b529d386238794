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
}
