// Package architecture holds the tests that keep the repository in the shape
// ARCHITECTURE.md describes: who may import whom, where the heavy native
// libraries may be linked, and a few house rules that a compiler does not
// check. It has no code of its own.
package architecture
