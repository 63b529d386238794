// Package keyringkey keeps the key of a [consumer.LastGood] in the Linux kernel's keyring of the
// user that runs the process (keyctl). The key is on no disk, so a copy of the disk cannot be
// decrypted. A restart of the machine deletes the key. The last known good values are then reported
// in the log, ignored and replaced, so the next start needs the server. For a key that survives a
// restart use [consumer.SystemdCredential] or [consumer.KeyFile].
package keyringkey
