package kms

// Delay is delay, for tests.
var Delay = delay
