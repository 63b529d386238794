package auth

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/fault"
	"github.com/keyturn/keyturn/sign"
)

// parameters verifies version 1, where the signature is a parameter and covers the parameters of
// query and form.
func (a *Authenticator) parameters(ctx context.Context, r *Request, query sign.Params, claim *Claim) (verified, error) {
	claim.take(query)
	if a.config.RefuseV1 {
		return verified{}, fault.New(fault.BadSignature,
			"Signature version 1 is switched off here; sign with version 3 or 4.")
	}
	inForm := r.Length != 0 && claim.AccessKeyID == ""
	all, key, err := a.readV1(ctx, r, query, claim)
	if err != nil {
		return verified{}, err
	}
	at, err := checkV1(all, *claim)
	if err != nil {
		return verified{}, err
	}
	if inForm {
		if err = r.admit(*claim); err != nil {
			return verified{}, err
		}
	}
	if key.Secret == nil {
		if key, err = a.find(ctx, claim.AccessKeyID); err != nil {
			return verified{}, err
		}
	}
	ok, err := key.Secret.VerifyV1(r.Method, all)
	switch {
	case err != nil:
		return verified{}, fault.New(fault.BadSignature, "%s", err)
	case !ok:
		return verified{}, a.mismatch(r.Method, all)
	}
	nonce := value(all, "SignatureNonce")
	if nonce == "" {
		// KMS documents a request without a nonce as legal. Its signature takes the place of the nonce,
		// so that it is accepted once.
		nonce = value(all, "Signature")
	}
	v := verified{params: all}
	v.principal, err = a.accept(key, value(all, "SecurityToken"), at, nonce)
	return v, err
}

// readV1 returns the parameters of query and form, and the key if it was found on the way. It reads
// the body only once the query has named a key that exists, or when the query cannot name one
// because all is in the form: otherwise a caller without a key could have any body read.
func (a *Authenticator) readV1(
	ctx context.Context, r *Request, query sign.Params, claim *Claim,
) (all sign.Params, key Key, err error) {
	if r.Length == 0 {
		return query, key, r.admit(*claim)
	}
	if err = r.checkFormBody(); err != nil {
		return nil, key, err
	}
	if claim.AccessKeyID != "" {
		if err = r.admit(*claim); err != nil {
			return nil, key, err
		}
		if key, err = a.find(ctx, claim.AccessKeyID); err != nil {
			return nil, key, err
		}
	}
	if all, err = r.readForm(query); err != nil {
		return nil, key, err
	}
	claim.take(all)
	return all, key, nil
}

// checkV1 checks everything of version 1 that needs no key, and returns the time of the request.
func checkV1(all sign.Params, claim Claim) (time.Time, error) {
	switch {
	case value(all, "Signature") == "":
		return time.Time{}, fault.New(fault.BadSignature, "The request is not signed.")
	case claim.AccessKeyID == "":
		return time.Time{}, fault.New(fault.MissingKey, "AccessKeyId is mandatory for this action.")
	}
	at, err := parseTime(value(all, "Timestamp"))
	switch {
	case value(all, "SignatureType") != "":
		return at, fault.New(fault.BadSignature,
			"SignatureType %q is not supported.", clip(value(all, "SignatureType")))
	case value(all, "SignatureVersion") != "1.0":
		return at, fault.New(fault.BadSignature, "SignatureVersion must be 1.0.")
	}
	return at, err
}

// mismatch is the answer to a wrong signature of version 1. The legacy SDK compares what follows
// "is:" with its own string and reports a wrong secret to its user when they are equal. The string
// holds every parameter, so it is left out unless all of them are harmless.
func (a *Authenticator) mismatch(method string, all sign.Params) error {
	const message = "Specified signature is not matched with our calculation."
	for _, p := range all {
		if a.config.Harmless == nil || !a.config.Harmless(p.Name) {
			return fault.New(fault.WrongSignature, message)
		}
	}
	return fault.New(fault.WrongSignature, "%s", message+" server string to sign is:"+sign.StringToSignV1(method, all))
}
