package consumer

// LastGood keeps values on disk.
type LastGood struct{}
