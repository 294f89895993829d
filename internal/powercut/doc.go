// Package powercut proves what the log promises about power cuts, on a simulated
// disk.
//
// # Histories
//
// A history is a list of operations: calls of the log, Close and Open, the death
// of the process, failing syncs, power cuts. An Op says what to do relative to
// the state of the log, so that every part of a history is a history too, and it
// can be written as a line of text: see Parse.
//
// # What is checked
//
// While a history runs, a model knows all that a power cut may leave: what was
// promised, and of the call under way each outcome. Of each image that a cut can
// leave it is checked that Open recovers it, that the log is one of those models,
// byte by byte, and that it goes on: it takes a Save, is closed, and opened again.
//
// Short tries all histories of a length, all steps of the disk in them, and all
// subsets of what may be lost. Random tries long histories, and fewer images of
// each. What fails is reported as a *Failure, with what is needed to run it again.
package powercut
