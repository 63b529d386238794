package redis

// These are for the tests that compare with a real server.
var (
	Power           = power
	Powers          = powers
	PowerCategories = powerCategories
	OtherCategories = otherCategories
)
