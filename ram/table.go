package ram

import (
	"slices"

	"github.com/keyturn/keyturn/internal/operation"
)

var service = operation.Service{Name: "Ram", Version: Version}

// operations is every operation. Each file declares its own, beside the types that they name.
var operations = operation.NewTable(slices.Concat(
	userOperations,
	groupOperations,
	policyOperations,
)...)

func declare[In, Out any](name string) operation.Declaration {
	return operation.Declare[In, Out](service, name)
}

// Operations returns the description of every operation of this package. Its type may change from
// release to release: it is for the commands and the server of this module.
func Operations() *operation.Table { return operations }
