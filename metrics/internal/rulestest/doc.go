// Package rulestest tests docs/alerts and docs/grafana with Prometheus's own parser
// and engine. It is a module of its own, since those are heavy.
package rulestest
