package demo

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
)

// scramIterations is PostgreSQL's own default.
const scramIterations = 4096

// scramVerifier is what PostgreSQL stores for a password (RFC 5802, RFC 7677). It is computed here so that
// the password is in no statement, no log and no memory of the server.
func scramVerifier(password string, salt []byte) (string, error) {
	stored, server, err := scramKeys(password, salt)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return "SCRAM-SHA-256$" + strconv.Itoa(scramIterations) + ":" + b64(salt) + "$" + b64(stored) + ":" + b64(server), nil
}

func scramKeys(password string, salt []byte) (stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, scramIterations, sha256.Size)
	if err != nil {
		return nil, nil, errors.New("derive SCRAM keys")
	}
	client := sha256.Sum256(hmacSHA256(salted, "Client Key"))
	return client[:], hmacSHA256(salted, "Server Key"), nil
}

func hmacSHA256(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
