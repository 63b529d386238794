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
//     address may get a value when another principal tied the secret to it afterwards;
//   - no account at a target of the operator and no access key of a user changes because of a
//     call of an attacker, at once or later through the engine, unless the policies of the
//     caller name that account or user (account-changed, key-changed). The account of a target's
//     administrator, by whatever name, changes only for the secret that holds it, and a superuser
//     only where the account policy of the target names it;
//   - no access key becomes a secret of a caller who does not hold it (key-adopted);
//   - no account at a target of the operator gets a credential that an attacker chose
//     (credential-imposed): a right to rotate is none to set;
//   - no schedule rotates more often than the least interval, or is accepted with times that are
//     closer (too-often);
//   - what an application says of the versions that it uses is heard (consumer-unheard).
//
// An attacker also calls with every key that it obtains. The generator reads the model to draw
// names that exist and operations that some principal may do; parameters come from the table of
// operations, so a new operation takes part at once. Half of the attackers are about a work: what
// takes several calls and people do often, with all of the rights that it takes or all but one,
// and with what other people do around it. Other calls come in between.
// TestModelKnowsEveryOperation fails until the model knows what an operation needs.
//
// A failing sequence is shortened and printed, one step per line, in the form that the table of
// TestKnownSequences holds. The same seed draws the same steps for as long as the answers are
// the same; IDs, passwords and the jitter of the engine are random.
//
//	go test ./test/escalate                               the table, and a search of 5 s
//	go test ./test/escalate -full                         a search of 3 min; prints the figures (make prove does it)
//	go test ./test/escalate -seed 7 -span 1m -all         each sort of violation once
//
// To verify that the search still finds what it is for, take a rule away and run it with -span
// 1m: it stops at the first violation. Seed and seconds of that violation, from seed 1 on two
// busy cores:
//
//	api/binding.go, accountResources: without kms:RotateAccount                        4    0.3
//	api/binding.go, accountResources: without the actions on access keys              69    3.5
//	api/binding.go, bindNew: keys that are not live are taken                         52    2.7
//	api/binding.go, allows: account == admin instead of SameAccount                   26    0.8
//	api/binding.go, admit: without standing.Administrator                             63    4.2
//	api/binding.go, admit: without standing.Privileged                                10    0.5
//	secret/schedule.go, BoundTo: true for every binding                               11    0.4
//	secret/schedule.go, BoundTo: true without a binding                               36    0.9
//	api/targets.go, created: without the accounts of a managed secret                 69    3.4
//	api/targets.go, created: without kms:SetSecretPolicy for a policy                 14    0.4
//	api/targets.go, retargeted: without kms:GetSecretValue on what is redirected     117    6.5
//	api/targets.go, andSent: without kms:GetSecretValue on the administrator's secret 117    7.1
//	api/binding.go, andAccounts: without kms:GetSecretValue for a first binding       74    3.8
//	api/targets.go, deregistered: without kms:RemoveRotation                          43    2.8
//	api/accounts.go, prepared: without the secret                                     44    2.7
//	api/rotations.go, RepairRotation: without Repairable                              77    4.2
//	api/rotations.go, checkCron: without the least gap                               104    5.5
//	rotation/rotation.go, Earliest: zero                                             248   14.3
//	policy/secret.go, names: by the name, whatever the ID                             86    4.1
//	policy/evaluate.go: without the Deny of a secret's policy                         12    0.3
//	policy/evaluate.go: without the Deny of an identity policy                         9    0.3
//	api/watch.go, leave: for secrets that the caller may not read, and
//	api/note_queue.go, put: a full queue refuses every key                            37   14.4
//
// Not found: leave without the right alone, because the queue is shared fairly and nobody notices.
// TestLeavingWithoutARightIsNotNoted in internal/api covers it.
package escalate
