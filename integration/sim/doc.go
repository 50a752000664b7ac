// Package sim runs the real fold, rules, planner loop and executor against a simulated cluster under a virtual clock, in one
// goroutine, from a seed: the same seed gives the same run, step for step. A plan of edits and faults is drawn from the
// seed; the checks look at the simulated API server as an outside observer would, and at the log. A plan that fails is
// shrunk and told as a trace.
//
// It simulates the API server, the watcher, a scheduler, kubelets, nodes and garbage collection, and decides when anything
// happens. It does not simulate the executor's limiter and turns, JetStream, or goroutines that race.
package sim
