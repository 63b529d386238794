package server_test

import (
	"github.com/keyturn/keyturn/internal/server"
	"github.com/keyturn/keyturn/sign"
)

func signCredentials(a server.Admin) sign.Credentials {
	return sign.Credentials{AccessKeyID: a.AccessKeyID, AccessKeySecret: a.AccessKeySecret}
}
