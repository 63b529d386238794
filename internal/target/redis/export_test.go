package redis

// What the tests compare with a real server.
var (
	Power           = power
	Powers          = powers
	PowerCategories = powerCategories
	OtherCategories = otherCategories
)
