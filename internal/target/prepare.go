package target

import "context"

// Preparer is a target that can turn one account into two of equal rights, for strategy Double.
type Preparer interface {
	// PlanAccounts looks at the target and says what has to be done. It changes nothing. A plan
	// without steps means that all is done.
	PlanAccounts(ctx context.Context, r PlanRequest) (Plan, error)
	// ApplyPlan does what a plan says. It refuses when the target is not as it was when the plan
	// was made.
	ApplyPlan(ctx context.Context, p Plan) error
	// ProveAccounts logs in with both credentials and compares what they may do. It leaves nothing
	// behind.
	ProveAccounts(ctx context.Context, r PlanRequest, a, b Credential) error
}

// OwnerSuffix follows the name of the account in the name of an owner that a request leaves out.
const OwnerSuffix = "_owner"

// PlanRequest says which accounts are wanted.
type PlanRequest struct {
	// Account is what exists: a login, or an owner that nobody logs in as.
	Account string `json:"account"`
	// Owner is the account that owns everything afterwards and that nobody logs in as. Empty means
	// Account and OwnerSuffix, or Account itself when nobody can log in as it.
	Owner string `json:"owner,omitempty"`
	// Logins are the two that take turns. Account may be one of them. When it is not, it goes on
	// working beside them.
	Logins [2]string `json:"logins"`
	// Databases are those in which a proof compares what both may do. None means all that they may
	// connect to.
	Databases []string `json:"databases,omitempty"`
	// Current is the credential of Account, for a target that does not tell what it stores. It may
	// be zero.
	Current Credential `json:"-"`
}

// Plan is what has to be done. It holds no secret, so it can be shown.
type Plan struct {
	Request PlanRequest `json:"request"`
	Steps   []PlanStep  `json:"steps,omitempty"`
	// Notes are what a person should know and the plan does not do.
	Notes []string `json:"notes,omitempty"`
}

// PlanStep is done whole or not at all.
type PlanStep struct {
	Database   string   `json:"database"`
	Statements []string `json:"statements"`
}
