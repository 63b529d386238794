package kms

import (
	"slices"

	"github.com/keyturn/keyturn/internal/operation"
)

var (
	service      = operation.Service{Name: "Kms", Version: Version}
	tokenService = operation.Service{Name: "Sts", Version: STSVersion}
)

// operations is every operation. Each file declares its own, beside the types that they name.
var operations = operation.NewTable(slices.Concat(
	secretOperations,
	valueOperations,
	secretPolicyOperations,
	tagOperations,
	targetOperations,
	rotationOperations,
	consumerOperations,
	serverOperations,
	trailOperations,
	accountOperations,
)...)

func declare[In, Out any](name string) operation.Declaration {
	return operation.Declare[In, Out](service, name)
}

func declareToken[In, Out any](name string) operation.Declaration {
	return operation.Declare[In, Out](tokenService, name)
}

// Operations returns the description of every operation of this package. Its type may change from
// release to release: it is for the commands and the server of this module.
func Operations() *operation.Table { return operations }
