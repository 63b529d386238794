// Package kms is the Alibaba Cloud KMS Secrets Manager API (RPC, version 2016-01-20) in Go: the
// request and response of every operation, its error codes, and a Client for any endpoint that
// speaks it, Keyturn's or the cloud's own.
//
// The structs say with their `kms` tags what crosses the wire; the server decodes with the same
// tags. Times are UTC with whole seconds. A field at its zero value is not sent, unless the
// operation requires it.
//
// A secret value is a sensitive.Value: it prints as [redacted], and Reveal is the only way in.
//
// Errors that the service answers are *Error. Branch on them with errors.Is and the Err variables:
//
//	_, err := client.GetSecretValue(ctx, &kms.GetSecretValueRequest{SecretName: "app/db"})
//	if errors.Is(err, kms.ErrResourceNotFound) { … }
package kms

// Versions of the API that one endpoint serves.
const (
	// Version is the KMS API.
	Version = "2016-01-20"
	// STSVersion is the token service, which serves GetCallerIdentity.
	STSVersion = "2015-04-01"
)

// The stage labels that the service maintains itself.
const (
	// StageCurrent marks the version that GetSecretValue returns by default.
	StageCurrent = "ACSCurrent"
	// StagePrevious marks the version that was current before.
	StagePrevious = "ACSPrevious"
	// StagePending marks the candidate of a rotation that is in progress. It is an extension of
	// Keyturn.
	StagePending = "ACSPending"
)

// Types of a secret (SecretType). All but TypeGeneric are managed: the service changes the
// credential at its target.
const (
	TypeGeneric        = "Generic"
	TypeRds            = "Rds"
	TypeRedis          = "Redis"
	TypePolarDB        = "PolarDB"
	TypeRAMCredentials = "RAMCredentials"
	TypeECS            = "ECS"
)

// How a value is meant to be read (SecretDataType). The service never encodes or decodes it.
const (
	DataText   = "text"
	DataBinary = "binary"
)

// Auto is the literal "$Auto": as SecretName of a RAMCredentials secret the service makes the name,
// as SecretData of a Redis or PolarDB secret it makes the credential.
const Auto = "$Auto"
