package mysql

// NativeHash is for tests that make accounts.
var NativeHash = nativeHash
