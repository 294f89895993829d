package report

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/seed-2fef92ad/raftwal/bench/internal/contender"
	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
)

// Document puts the tables into a document in Markdown: each between the lines
// "<!-- NAME: begin -->" and "<!-- NAME: end -->". Of the latencies it shows the reference's,
// ours and those of the best of the others. What was not measured stays as it is.
func Document(path string, res *suite.Results) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(raw)
	short := *res
	short.Results = slices.DeleteFunc(slices.Clone(res.Results), func(r suite.Result) bool {
		return r.Contender != contender.Reference && r.Contender != contender.Ours && r.Contender != nameOf(bestOther(res, r.Workload))
	})
	for _, s := range sections() {
		var b strings.Builder
		if s.name == "latencies" {
			s.write(&b, &short)
		} else {
			s.write(&b, res)
		}
		if b.Len() == 0 {
			continue
		}
		if text, err = replaceSection(text, s.name, b.String()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// replaceSection puts table between the lines of that name.
func replaceSection(text, name, table string) (string, error) {
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	before, rest, found := strings.Cut(text, begin)
	if !found {
		return "", fmt.Errorf("no line %q", strings.TrimSpace(begin))
	}
	_, after, found := strings.Cut(rest, end)
	if !found {
		return "", fmt.Errorf("no line %q", end)
	}
	return before + begin + strings.TrimLeft(table, "\n") + end + after, nil
}
