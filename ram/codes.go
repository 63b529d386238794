package ram

// Codes of the user service, for comparison with [kms.CodeOf]. Three more name the parameter that
// is invalid: InvalidParameter.NAME.InvalidChars, InvalidParameter.NAME.Length and
// InvalidParameter.NAME.Format.
const (
	CodeNoPermission = "NoPermission"

	CodeMalformedPolicy = "MalformedPolicyDocument"
	CodePolicyType      = "InvalidParameter.PolicyType"

	CodeUserNotExist          = "EntityNotExist.User"
	CodeKeyNotExist           = "EntityNotExist.User.AccessKey"
	CodeUserWithoutPolicy     = "EntityNotExist.User.Policy"
	CodeUserNotInGroup        = "EntityNotExist.User.Group"
	CodeGroupNotExist         = "EntityNotExist.Group"
	CodeGroupWithoutPolicy    = "EntityNotExist.Group.Policy"
	CodePolicyNotExist        = "EntityNotExist.Policy"
	CodePolicyVersionNotExist = "EntityNotExist.Policy.Version"

	CodeUserExists     = "EntityAlreadyExists.User"
	CodeUserInGroup    = "EntityAlreadyExists.User.Group"
	CodeUserHasPolicy  = "EntityAlreadyExists.User.Policy"
	CodeGroupExists    = "EntityAlreadyExists.Group"
	CodeGroupHasPolicy = "EntityAlreadyExists.Group.Policy"
	CodePolicyExists   = "EntityAlreadyExists.Policy"

	CodeDeleteUserKey        = "DeleteConflict.User.AccessKey"
	CodeDeleteUserPolicy     = "DeleteConflict.User.Policy"
	CodeDeleteUserGroup      = "DeleteConflict.User.Group"
	CodeDeleteGroupUser      = "DeleteConflict.Group.User"
	CodeDeleteGroupPolicy    = "DeleteConflict.Group.Policy"
	CodeDeletePolicyUser     = "DeleteConflict.Policy.User"
	CodeDeletePolicyGroup    = "DeleteConflict.Policy.Group"
	CodeDeletePolicyVersion  = "DeleteConflict.Policy.Version"
	CodeDeleteDefaultVersion = "DeleteConflict.Policy.Version.Default"

	CodeUserLimit          = "LimitExceeded.User"
	CodeKeyLimit           = "LimitExceeded.User.AccessKey"
	CodeUserGroupLimit     = "LimitExceeded.User.Group"
	CodeUserPolicyLimit    = "LimitExceeded.User.Policy"
	CodeGroupLimit         = "LimitExceeded.Group"
	CodeGroupPolicyLimit   = "LimitExceeded.Group.Policy"
	CodePolicyLimit        = "LimitExceeded.Policy"
	CodePolicyVersionLimit = "LimitExceeded.Policy.Version"
)
