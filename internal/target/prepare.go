package target

import "context"

// Preparer is a target that can turn one account into two of equal rights, for strategy Double.
type Preparer interface {
	// PlanAccounts reads the target's state and returns the steps that are needed; none when all is
	// done. It changes nothing.
	PlanAccounts(ctx context.Context, r PlanRequest) (Plan, error)
	// ApplyPlan carries out a plan. It fails with class Denied when the target has changed since the
	// plan was made, because the caller has approved another plan, and when Account can do something
	// else afterwards than before, as far as Current lets the target compare.
	ApplyPlan(ctx context.Context, p Plan) error
	// ProveAccounts logs in with both credentials and compares what an application sees and may do. It
	// leaves nothing behind.
	ProveAccounts(ctx context.Context, r PlanRequest, a, b Credential) (Proof, error)
}

// Proof says where two accounts were compared and are equal.
type Proof struct {
	// Databases are those in which they were compared.
	Databases []string
	// Left has a clause for the operator about each database in which they were not.
	Left []string
}

// OwnerSuffix is appended to the account's name when a request does not name the owner.
const OwnerSuffix = "_owner"

// PlanRequest says which accounts are wanted.
type PlanRequest struct {
	// Account is a login that exists. It stays what it is.
	Account string `json:"account"`
	// Owner is the account that Account acts as, when that is another one already; otherwise empty.
	Owner string `json:"owner,omitempty"`
	// Logins are the two accounts that alternate: Account and its clone.
	Logins [2]string `json:"logins"`
	// Undo removes the clone instead of making it.
	Undo bool `json:"undo,omitempty"`
	// Databases lists the databases in which a proof compares the rights of both. None means all in
	// which they have something, and which they may open.
	Databases []string `json:"databases,omitempty"`
	// Current is the credential of Account, for a target that does not reveal what it stores. It may
	// be zero.
	Current Credential `json:"-"`
}

// Plan lists the steps that turn one account into two. It contains no secret, so it can be shown.
type Plan struct {
	Request PlanRequest `json:"request"`
	// Owner is the account that the two logins act as afterwards.
	Owner string     `json:"owner,omitempty"`
	Steps []PlanStep `json:"steps,omitempty"`
	// Others are the accounts besides Logins that the steps change.
	Others []string `json:"others,omitempty"`
	// Notes are for the operator: what the plan does not do.
	Notes []string `json:"notes,omitempty"`
}

// PlanStep is done completely or not at all.
type PlanStep struct {
	Database   string   `json:"database"`
	Statements []string `json:"statements"`
}
