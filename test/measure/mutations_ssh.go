package main

// sshMutations break the rules of SSH hosts.
var sshMutations = []mutation{
	{
		name: "a new key has none of the options of the old one",
		file: "internal/target/ssh/script.go",
		old:  `print prefix[n] ENVIRON["LINE"]`,
		new:  `print ENVIRON["LINE"]`,
		pkg:  "internal/target/ssh",
		test: "TestKeepsOptions",
	},
	{
		name: "a key that no file lists counts as dead",
		file: "internal/target/ssh/lines.go",
		old:  "return target.NotKnown\n}",
		new:  "return target.Dead\n}",
		pkg:  "internal/target/ssh",
		test: "TestSecondFile",
	},
	{
		name: "a removed key is not tried",
		file: "internal/target/ssh/ssh.go",
		old:  "return h.shutOut(ctx, c.Old)",
		new:  "return nil",
		pkg:  "internal/target/ssh",
		test: "TestSecondFile",
	},
	{
		name: "a password of a host takes a hash of another form",
		file: "internal/target/ssh/password.go",
		old:  "want, err := unixcrypt.Like(stored, c.New.Secret, c.Salt())",
		new:  "want, err := shacrypt.Hash(c.New.Secret, shacrypt.Salt(c.Salt())), error(nil)",
		pkg:  "internal/target/ssh",
		test: "TestKeepsHashes",
	},
	{
		name: "each call to a host logs the administrator in",
		file: "internal/target/ssh/administrator.go",
		old:  "s.idle = &h.idle",
		new:  "",
		pkg:  "internal/target/ssh",
		test: "TestOneLogin",
	},
	{
		name: "a login takes as long as it likes while reads are blocked",
		file: "internal/rotator/login.go",
		old:  "!ok || most == 0",
		new:  "ok || most == 0",
		pkg:  "test/messy",
		test: "TestSlowLogin",
	},
}
