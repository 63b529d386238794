// Package sshkey has what the engine and consumers need alike to log in at SSH hosts.
package sshkey

import "golang.org/x/crypto/ssh"

// Strongest returns an RSA key that signs with SHA-512 where the host takes that, as OpenSSH does;
// any other key as it is. A host may take nothing else from some accounts, although it names more
// algorithms (PubkeyAcceptedAlgorithms in a Match block of sshd_config), and a client of
// golang.org/x/crypto/ssh tries one algorithm for each key.
func Strongest(key ssh.Signer) ssh.Signer {
	signs, ok := key.(ssh.AlgorithmSigner)
	if !ok || key.PublicKey().Type() != ssh.KeyAlgoRSA {
		return key
	}
	ordered, err := ssh.NewSignerWithAlgorithms(signs, []string{
		ssh.KeyAlgoRSASHA512,
		ssh.KeyAlgoRSASHA256,
		ssh.KeyAlgoRSA,
	})
	if err != nil {
		return key
	}
	return ordered
}
