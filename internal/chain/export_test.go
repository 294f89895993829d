package chain

// Counting returns which entries count, file by file; the zero Range where none does. Entries
// that are compacted are among them.
func (c *Chain) Counting() []Range {
	all := make([]Range, c.files)
	for _, p := range c.parts {
		all[p.file] = p.Range
	}
	return all
}
