package suite

import (
	"slices"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
)

// study looks at logs in a way that has no reference to compare with.
type study struct {
	name    string
	suits   func(contender.Contender) bool
	measure func(r *runner, c contender.Contender, dir string) error
}

func allStudies() []study {
	isLog := func(c contender.Contender) bool { return c.Name != contender.Reference }
	return []study{
		{"growth", isLog, (*runner).grow},
		{"reopen", isLog, (*runner).reopen},
		{"compaction", func(c contender.Contender) bool { return c.Compacts }, (*runner).compact},
		{"idle", func(c contender.Contender) bool { return c.Ours }, (*runner).idle},
	}
}

// Studies returns the names of all studies.
func Studies() []string {
	var names []string
	for _, s := range allStudies() {
		names = append(names, s.name)
	}
	return names
}

// studies returns those that are to be done.
func (c *Config) studies() []study {
	return slices.DeleteFunc(allStudies(), func(s study) bool { return !slices.Contains(c.Studies, s.name) })
}

// studied returns the contenders of a study.
func (c *Config) studied(s study) []contender.Contender {
	return slices.DeleteFunc(slices.Clone(c.Contenders), func(x contender.Contender) bool { return !s.suits(x) })
}
