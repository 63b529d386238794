// Package keyringkey keeps the key of a consumer.LastGood in the kernel's keyring of the user that
// runs the process (Linux, keyctl). It is on no disk, so copies of the disk are of no use; after a
// restart of the machine it is gone, and with it the last known good values: they are then
// reported, ignored and replaced, and the server is needed once. For a key that outlasts a restart
// use consumer.SystemdCredential or consumer.KeyFile.
package keyringkey
