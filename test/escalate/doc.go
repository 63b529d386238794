// Package escalate searches for rights that give more than they say.
//
// Two attackers with small random policies, an administrator, an application and a user whom a
// secret's policy names make random sequences of all operations of the API, before the real
// gate, the real store and the real rotation engine. Targets are in this process; some addresses
// belong to an attacker. Time is the test's own. After each call and each step of the engine a
// reference model, which shares no code with package policy and reads nothing that the product
// stored, verifies that
//
//   - no call succeeds, or gets past the policies, that the policies of its caller do not allow
//     (not-allowed), or that a Deny in the policy of a secret forbids (deny-ignored);
//   - no value of a secret arrives at an address of an attacker, or in an answer to one, who may
//     not read the secret (value-sent, value-shown). A target that was pointed to the attacker's
//     address may get a value when somebody else tied the secret to it afterwards;
//   - no account at a target of the operator and no access key of a user changes because of a
//     call of an attacker, at once or later through the engine, unless the policies of the
//     caller name that account or user (account-changed, key-changed). The account of a target's
//     administrator never does, and a superuser only where the account policy of the target
//     names it;
//   - no account at a target of the operator gets a credential that an attacker chose
//     (credential-imposed): a right to rotate is none to set;
//   - no schedule rotates more often than the least interval (too-often);
//   - what an application says of the versions that it uses is heard (consumer-unheard).
//
// An attacker also calls with every key that it obtains. The generator looks at the model to
// draw names that exist and operations that somebody may do; parameters come from the table of
// operations, so a new operation takes part at once. Half of the attackers are about a work: what
// takes several calls and people do often, with all of the rights that it takes or all but one, and
// with what other people do around it. Other calls come in between. TestModelKnowsEveryOperation
// fails until the model knows what an operation needs.
//
// A failing sequence is shortened and printed, one step per line, in the form that the table of
// TestKnownSequences holds. The same seed draws the same steps for as long as the answers are
// the same; IDs, passwords and the jitter of the engine are random.
//
//	go test ./test/escalate                               the table, and a search of 5 s
//	go test ./test/escalate -full                         a search of 3 min; prints the figures (make prove does it)
//	go test ./test/escalate -seed 7 -span 1m -all         each sort of violation once
//
// To verify that the search still finds what it is for, take a rule away and run it; with seed 1 it
// stops at the first violation. Seconds and seed of that violation, on two busy cores:
//
//	accountResources in api/binding.go: without kms:RotateAccount                   0.2 s, seed 2
//	created in api/targets.go: without the accounts of a managed secret             6.2 s, seed 70
//	created: without kms:SetSecretPolicy for a policy                               0.3 s, seed 9
//	retargeted in api/targets.go: without kms:GetSecretValue on what is redirected  0.6 s, seed 15
//	deregistered in api/targets.go: without kms:RemoveRotation                      0.3 s, seed 13
//	prepared in api/accounts.go: without the secret                                 0.1 s, seed 2
//	RepairRotation in api/rotations.go: without Repairable                          0.7 s, seed 14
//	names in policy/secret.go: a grant fits the name, whatever the ID               1.2 s, seed 28
//	policy/evaluate.go: a Deny in a secret's policy does not count                  0.1 s, seed 2
//	policy/evaluate.go: a Deny in an identity policy does not count                 7.8 s, seed 116
//
// Not found: in 15 s, the least interval of Cron, the ID in a binding and the spelling of the
// administrator's account, each taken away alone; in 12 s, accountResources without the rights on
// access keys, and admit without the standing of privileged accounts. A search from other seeds,
// with other weights, has found the last two (seeds 55 and 14).
package escalate
