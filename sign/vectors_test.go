package sign

import (
	"net/url"
	"testing"
	"time"
)

// The worked vectors of the protocol description, computed with the official Go signer.

const testSecret = "testsecret"

type vectorV1 struct {
	name, method string
	query, form  string // as on the wire
	canonical    string // empty where the description prints none
	stringToSign string
	signature    string
}

var vectorsV1 = []vectorV1{
	{
		name: "1.1", method: "GET",
		query:        "AccessKeyId=testid&Action=CreateKey&Format=json&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&Timestamp=2016-03-28T03:13:08Z&Version=2016-01-20&Signature=41wk2SSX1GJh7fwnc5eqOfiJPFg%3D",
		stringToSign: "GET&%2F&AccessKeyId%3Dtestid%26Action%3DCreateKey%26Format%3Djson%26SignatureMethod%3DHMAC-SHA1%26SignatureVersion%3D1.0%26Timestamp%3D2016-03-28T03%253A13%253A08Z%26Version%3D2016-01-20",
		signature:    "41wk2SSX1GJh7fwnc5eqOfiJPFg=",
	},
	{
		name: "1.2", method: "POST",
		query:        "AccessKeyId=testid&Action=GetSecretValue&Format=JSON&RegionId=cn-hangzhou&SecretName=my%2Fsecret&Signature=qMp6b%2FvKvxzKL0dbFpI26i1iCZU%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=05345f00385d74f08091daaf500f18a8&SignatureType=&SignatureVersion=1.0&Timestamp=2026-11-23T07%3A02%3A51Z&Version=2016-01-20",
		stringToSign: "POST&%2F&AccessKeyId%3Dtestid%26Action%3DGetSecretValue%26Format%3DJSON%26RegionId%3Dcn-hangzhou%26SecretName%3Dmy%252Fsecret%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3D05345f00385d74f08091daaf500f18a8%26SignatureType%3D%26SignatureVersion%3D1.0%26Timestamp%3D2026-11-23T07%253A02%253A51Z%26Version%3D2016-01-20",
		signature:    "qMp6b/vKvxzKL0dbFpI26i1iCZU=",
	},
	{
		name: "1.3", method: "POST",
		query:        "AccessKeyId=STS.testid&Action=CreateSecret&Description=&Format=JSON&RegionId=cn-hangzhou&SecretData=%7B%22p%22%3A%22%C3%A9~%2A%2B+%2F%25%5C%22%E4%B8%AD%22%7D&SecretName=app+one%2F%2B%3D.%40-_&SecurityToken=CAIS%2Btok%2Fen%3D%3D&Signature=thBJdWbQNa3xfGZV30DV6TEjR5I%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=9b7a44b0-3be1-11e5-8c73-08002700c460&SignatureType=&SignatureVersion=1.0&Tags=%5B%7B%22TagKey%22%3A%22k%22%2C%22TagValue%22%3A%22v%22%7D%5D&Timestamp=2026-01-02T03%3A04%3A05Z&Version=2016-01-20&VersionId=v1",
		canonical:    "AccessKeyId=STS.testid&Action=CreateSecret&Description=&Format=JSON&RegionId=cn-hangzhou&SecretData=%7B%22p%22%3A%22%C3%A9~%2A%2B%20%2F%25%5C%22%E4%B8%AD%22%7D&SecretName=app%20one%2F%2B%3D.%40-_&SecurityToken=CAIS%2Btok%2Fen%3D%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=9b7a44b0-3be1-11e5-8c73-08002700c460&SignatureType=&SignatureVersion=1.0&Tags=%5B%7B%22TagKey%22%3A%22k%22%2C%22TagValue%22%3A%22v%22%7D%5D&Timestamp=2026-01-02T03%3A04%3A05Z&Version=2016-01-20&VersionId=v1",
		stringToSign: "POST&%2F&AccessKeyId%3DSTS.testid%26Action%3DCreateSecret%26Description%3D%26Format%3DJSON%26RegionId%3Dcn-hangzhou%26SecretData%3D%257B%2522p%2522%253A%2522%25C3%25A9~%252A%252B%2520%252F%2525%255C%2522%25E4%25B8%25AD%2522%257D%26SecretName%3Dapp%2520one%252F%252B%253D.%2540-_%26SecurityToken%3DCAIS%252Btok%252Fen%253D%253D%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3D9b7a44b0-3be1-11e5-8c73-08002700c460%26SignatureType%3D%26SignatureVersion%3D1.0%26Tags%3D%255B%257B%2522TagKey%2522%253A%2522k%2522%252C%2522TagValue%2522%253A%2522v%2522%257D%255D%26Timestamp%3D2026-01-02T03%253A04%253A05Z%26Version%3D2016-01-20%26VersionId%3Dv1",
		signature:    "thBJdWbQNa3xfGZV30DV6TEjR5I=",
	},
	{
		name: "1.4", method: "POST",
		query:     "AccessKeyId=testid&Action=CreateSecret&Format=json&Signature=80TWhRVsm1ltT%2FVZqhyAa3bcR6M%3D&SignatureMethod=HMAC-SHA1&SignatureNonce=c9a58dba993424989057b5a42bcac9fc&SignatureVersion=1.0&Timestamp=2026-11-23T07%3A21%3A41Z&Version=2016-01-20",
		form:      "Description=&EnableAutomaticRotation=true&SecretData=%C3%A9%E4%B8%AD+%22x%22+%26+%3D+%25+~+%2A+%2B&SecretName=a+b%2F%2B%3D.%40-_~%2A&Tag.1.Key=k&Tag.1.Value=v&VersionId=v1",
		signature: "80TWhRVsm1ltT/VZqhyAa3bcR6M=",
	},
}

type vectorACS struct {
	name              string
	scheme            Scheme
	query, body       string // as on the wire
	contentType, host string
	id, token, action string
	region, provider  string
	canonical, digest string // empty where the description prints none
	authorization     string // the whole header, or only
	signature         string
}

const plainHeaders = "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version"

var vectorsACS = []vectorACS{
	{
		name: "3.1", scheme: ACS3, host: "kms.example.test", id: "testid", action: "GetSecretValue",
		query: "SecretName=my%2Fsecret&VersionStage=ACSCurrent",
		canonical: `POST
/
SecretName=my%2Fsecret&VersionStage=ACSCurrent
host:kms.example.test
x-acs-action:GetSecretValue
x-acs-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
x-acs-date:2026-01-02T03:04:05Z
x-acs-signature-nonce:3156853299f313e23d1673dc12e1703d
x-acs-version:2016-01-20

host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`,
		digest:        "a144b388b303fe1e744a9d19953172f52160bb42097f73f77b9022f0bbd7c65b",
		authorization: "ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=" + plainHeaders + ",Signature=2cfd1237ece57b3231987488f3510662e2ade557c7907e8fa8b110c8ff064126",
		signature:     "2cfd1237ece57b3231987488f3510662e2ade557c7907e8fa8b110c8ff064126",
	},
	{
		name: "3.2", scheme: ACS3, host: "kms.example.test:8443", id: "STS.testid", token: "CAIS+tok/en==", action: "CreateSecret", provider: "static_sts",
		query: "Description=&SecretData=%7B%22p%22%3A%22%C3%A9~%2A%2B+%2F%25%5C%22%E4%B8%AD%22%7D&SecretName=app+one%2F%2B%3D.%40-_&VersionId=v1",
		canonical: `POST
/
Description=&SecretData=%7B%22p%22%3A%22%C3%A9~%2A%2B%20%2F%25%5C%22%E4%B8%AD%22%7D&SecretName=app%20one%2F%2B%3D.%40-_&VersionId=v1
host:kms.example.test:8443
x-acs-accesskey-id:STS.testid
x-acs-action:CreateSecret
x-acs-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
x-acs-credentials-provider:static_sts
x-acs-date:2026-01-02T03:04:05Z
x-acs-security-token:CAIS+tok/en==
x-acs-signature-nonce:3156853299f313e23d1673dc12e1703d
x-acs-version:2016-01-20

host;x-acs-accesskey-id;x-acs-action;x-acs-content-sha256;x-acs-credentials-provider;x-acs-date;x-acs-security-token;x-acs-signature-nonce;x-acs-version
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855`,
		digest:    "bb5b224b57ca1f206ed665b3890fc51dfdd285bd9c004f5f494afb506a2a7d76",
		signature: "945c793c25b8e883ad896e81ed9a1deca918f61aeae07a14eed5e50b817e498e",
	},
	{
		name: "3.3", scheme: ACS3, host: "kms.example.test", id: "testid", action: "SetSecretPolicy",
		body: "PolicyName=default&SecretName=my%2Fsecret", contentType: "application/x-www-form-urlencoded",
		canonical: `POST
/

content-type:application/x-www-form-urlencoded
host:kms.example.test
x-acs-action:SetSecretPolicy
x-acs-content-sha256:0231061bd38a437b2033f5625c843cca4e54bb1c0ffd1549a45843bfa815921a
x-acs-date:2026-01-02T03:04:05Z
x-acs-signature-nonce:3156853299f313e23d1673dc12e1703d
x-acs-version:2016-01-20

content-type;host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version
0231061bd38a437b2033f5625c843cca4e54bb1c0ffd1549a45843bfa815921a`,
		digest:    "e9819678af6d6b3fd56b5c0c9fdd1e379ed47bf39c757988d288719730d126db",
		signature: "ebbbc7c849d71874f744397a90ce4185c00699504fe24c0cc96c2c629bd94d78",
	},
	{
		name: "3.4", scheme: ACS3, host: "kms.example.test", id: "testid", action: "GetSecretValue",
		body: `{"SecretName":"my/secret"}`, contentType: "application/json; charset=utf-8",
		digest:    "cc2eec1f9066d5d35600272326c65eeba1c3d8fd51a5e05a7b32a1d1a2f1194a",
		signature: "98e30e2bc0f819be8c87bfad94a6c794ec6fe9f80a947c7be4c090c325fcfb07",
	},
	{
		name: "4.1", scheme: ACS4, host: "kms.example.test", id: "testid", action: "GetSecretValue", region: "cn-hangzhou",
		query:         "SecretName=my%2Fsecret&VersionStage=ACSCurrent",
		authorization: "ACS4-HMAC-SHA256 Credential=testid/20260102/cn-hangzhou/Kms/aliyun_v4_request,SignedHeaders=" + plainHeaders + ",Signature=84910a2c461d698ba94d343df9805b852c841ab76ab201802a9798b30e75ace7",
		signature:     "84910a2c461d698ba94d343df9805b852c841ab76ab201802a9798b30e75ace7",
	},
}

var vectorTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const vectorNonce = "3156853299f313e23d1673dc12e1703d"

// decode reads wire forms the way a server does, in an order that depends on the map: no test may
// rely on it.
func decode(t testing.TB, forms ...string) Params {
	t.Helper()
	var p Params
	for _, form := range forms {
		values, err := url.ParseQuery(form)
		if err != nil {
			t.Fatal(err)
		}
		for name := range values {
			p = append(p, Param{name, values.Get(name)})
		}
	}
	return p
}
