// Package detect finds attacks in events with Sigma rules
// (https://sigmahq.io, specification version 2).
//
// Rules are compiled once. All literals of all rules of one kind of event are
// in one automaton per field, so an event is read once however many rules
// there are; only rules for which something was found are evaluated.
//
// Letter case is ignored for ASCII letters, as Sigma wants; other letters are
// compared as they are.
package detect
