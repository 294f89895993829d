package encryption

// KeyBytes returns the memory that holds the key.
func (k *DirectoryKey) KeyBytes() []byte { return k.key }

// Errors for tests.
var (
	ErrZeros   = errZeros
	ErrTooLong = errTooLong
)
