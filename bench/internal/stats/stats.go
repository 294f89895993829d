// Package stats condenses measurements: medians, quartiles, ratios and
// percentiles.
package stats

import "slices"

// Summary is the median of some values and the quartiles around it.
type Summary struct {
	Median float64 `json:"median"`
	Q1     float64 `json:"q1"`
	Q3     float64 `json:"q3"`
}

// Summarize returns the summary of values; a zero one if there are none.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return Summary{Median: quantile(sorted, 0.5), Q1: quantile(sorted, 0.25), Q3: quantile(sorted, 0.75)}
}

// Ratios divides each value by the one of the same round in base.
func Ratios(values, base []float64) []float64 {
	ratios := make([]float64, min(len(values), len(base)))
	for k := range ratios {
		ratios[k] = values[k] / base[k]
	}
	return ratios
}

// quantile returns the value below which the share q of the sorted values lies,
// interpolated between the two nearest ones.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := int(at)
	if below+1 == len(sorted) {
		return sorted[below]
	}
	return sorted[below] + (at-float64(below))*(sorted[below+1]-sorted[below])
}
