package sign_test

import (
	"fmt"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/sensitive"
	"github.com/keyturn/keyturn/sign"
)

func ExampleCredentials_SignHTTP() {
	key := sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("testsecret")}
	r, err := http.NewRequest(http.MethodPost,
		"https://kms.example.test/?SecretName=my%2Fsecret&VersionStage=ACSCurrent", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = key.SignHTTP(r, sign.Call{
		Action:  "GetSecretValue",
		Version: "2016-01-20",
		Time:    time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), // time.Now() in a program
		Nonce:   "3156853299f313e23d1673dc12e1703d",          // rand.Text()
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	a, err := sign.ParseAuthorization(r.Header.Get("Authorization"))
	fmt.Println(a.AccessKeyID, len(a.SignedHeaders), a.Signature[:8], err)
	// Output: testid 6 2cfd1237 <nil>
}

func ExampleVerifyV1() {
	key := sign.Credentials{AccessKeyID: "testid", AccessKeySecret: sensitive.New("testsecret")}
	p := sign.Params{{
		Name:  "Action",
		Value: "CreateKey",
	}, {Name: "Version", Value: "2016-01-20"}, {Name: "Format", Value: "json"}}
	p, err := key.SignV1(http.MethodGet, p, time.Date(2016, 3, 28, 3, 13, 8, 0, time.UTC), "")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, ok, err := sign.VerifyV1(key.AccessKeySecret, http.MethodGet, p)
	fmt.Println(ok, err)
	// Output: true <nil>
}
