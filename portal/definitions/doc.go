// Package definitions makes and publishes releases of definitions: it gathers
// signatures from their sources, tries them with the engine, packs them, and
// signs them as a repository of The Update Framework (api/release), which the
// portal serves and mirrors copy.
//
// A data folder holds
//
//	keys/        private keys of the four roles; root.pem may be kept elsewhere
//	repository/  what is published: metadata/ and targets/
//	releases/    CHANNEL/SEQUENCE.json: the sets of the last releases
//	gathered/    what was fetched last from every source
//	lock         held while something is changed
package definitions
