package api

// Bounds of the numbers of calls without records of their own.
const (
	MaxTallies    = maxTallies
	TallyInterval = tallyInterval
)
