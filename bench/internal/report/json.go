package report

import (
	"encoding/json"
	"os"

	"github.com/seed-2fef92ad/raftwal/bench/internal/suite"
)

// JSON writes the results to a file.
func JSON(path string, res *suite.Results) error {
	text, err := json.MarshalIndent(res, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
