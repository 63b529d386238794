package kms

// The states of a rotation: [DescribeRotationResponse.State], [ListedRotation.State] and
// [RotationStep.State]. docs/rotation.md describes what each state means for an operator.
const (
	// RotationIdle means that no rotation has run yet and none is in progress.
	RotationIdle = "idle"
	// RotationScheduled means that a rotation was requested or is due. There is no candidate yet.
	RotationScheduled = "scheduled"
	// RotationPrepared means that the candidate is stored. The target does not have it.
	RotationPrepared = "prepared"
	// RotationApplying means that the candidate is being sent to the target.
	RotationApplying = "applying"
	// RotationRefused means that the rules of the target do not allow the candidate. Another
	// candidate follows.
	RotationRefused = "refused"
	// RotationUnknown means that the target may or may not have the candidate.
	RotationUnknown = "unknown"
	// RotationApplied means that the target has confirmed that it has the candidate.
	RotationApplied = "applied"
	// RotationVerified means that a login with the candidate succeeded.
	RotationVerified = "verified"
	// RotationGrace means that the candidate is [StageCurrent] and that the credential it replaced
	// still works.
	RotationGrace = "grace"
	// RotationUndoing means that an operator requested the previous credential back.
	RotationUndoing = "undoing"
	// RotationRetiring means that the previous credential is being made useless.
	RotationRetiring = "retiring"
	// RotationReverting means that the candidate is being removed from the target.
	RotationReverting = "reverting"
	// RotationDone means that the rotation succeeded.
	RotationDone = "done"
	// RotationAbandoned means that the rotation ended and changed nothing.
	RotationAbandoned = "abandoned"
	// RotationQuarantined means that the target accepts neither credential: an operator must act
	// (RepairRotation).
	RotationQuarantined = "quarantined"
)
