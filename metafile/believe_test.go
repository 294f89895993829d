package metafile

import "testing"

// TestBelieved: a hard state that was stored without a sync counts only if the records
// reach the place that it was stored behind.
func TestBelieved(t *testing.T) {
	page := func(sequence, commit uint64, behind End) *Meta {
		return &Meta{sequence: sequence, FirstFile: 3, HardState: HardState{Term: 1, Commit: commit, Stored: true}, Behind: behind}
	}
	found := []End{{3, 900, 33}, {4, 500, 44}}
	for _, c := range []struct {
		name  string
		pages Pages
		want  int // page whose hard state counts
	}{
		{"nothing can be read", Pages{}, -1},
		{"the newest, reached", Pages{page(5, 1, End{}), page(5, 1, End{}), page(6, 2, End{4, 400, 44}), page(7, 3, End{4, 500, 44})}, 3},
		{"the newest, not reached", Pages{page(5, 1, End{}), page(5, 1, End{}), page(6, 2, End{4, 400, 44}), page(7, 3, End{4, 501, 44})}, 2},
		{"neither", Pages{page(5, 1, End{}), page(4, 0, End{}), page(6, 2, End{4, 501, 44}), page(7, 3, End{5, 8, 55})}, 0},
		{"another file of that number", Pages{page(5, 1, End{}), nil, nil, page(7, 3, End{4, 500, 45})}, 0},
		{"in a dead file", Pages{page(5, 1, End{}), nil, nil, page(7, 3, End{2, 1 << 40, 22})}, 3},
		{"synced, of any time", Pages{page(5, 1, End{}), nil, page(7, 3, End{}), nil}, 2},
		{"older than what was synced", Pages{page(8, 4, End{}), page(8, 4, End{}), page(6, 2, End{4, 400, 44}), page(7, 3, End{4, 500, 44})}, 0},
		{"promised pages ask for no records", Pages{nil, page(8, 4, End{9, 9, 9}), page(6, 2, End{4, 400, 44}), nil}, 1},
	} {
		if got, _ := c.pages.Believed(found); got != c.want {
			t.Errorf("%s: page %d, want %d", c.name, got, c.want)
		}
	}
}
