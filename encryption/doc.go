// Package encryption wraps keys and seals records for encryption at rest. It
// knows bytes, not files: what stands where is up to its callers.
//
// # Keys
//
//	key            made                     encrypts or authenticates                 nonce
//	master key     by the user, or a KMS    the directory key                         random, or the KMS's affair
//	directory key  random, one per log      nothing itself; three keys derive from it -
//	  page key     HKDF-SHA256              pages, manifests: HMAC-SHA256             none
//	  seal key     HKDF-SHA256              small secrets inside pages                random
//	  wrap key     HKDF-SHA256              data keys                                 random
//	data key       random, one per file     the records of an entry file, or the      offset of the record, or
//	               and life of a file       chunks of a snapshot file                 number of the chunk
//
// All encryption is AES-GCM with 96-bit nonces and 128-bit tags. To change the
// master key, the directory key is wrapped anew; nothing else changes.
//
// # Why no nonce repeats under a key
//
// Under a data key a nonce says "record" or "chunk", and which. A FileKey that
// NewFileKey returned seals records at ascending offsets only, and one stream
// only; one that UnwrapFileKey returned seals nothing. So a data key is used
// for sealing by the one process that made it, and there at most once for each
// nonce, whatever happens:
//
//   - Overwrites: entries that are replaced stay where they are; the new records
//     stand at higher offsets. What is stored a second time at its offset, after
//     a crash, is the same ciphertext.
//   - Truncation, crash, recovery, torn writes: whatever of a file reached the
//     disk, no later Open appends to it. It starts a file, with a new key.
//   - Copies of a directory that both go on: they share the directory key, but
//     each Open makes data keys of its own.
//   - Files that are reused, or written anew under an old name: a new life, a new
//     key.
//   - Meta pages and header pages, torn, rewritten, or restored: their MAC has no
//     nonce, and what is sealed inside of them has a random one.
//
// One thing is beyond this package: if the memory of a running process is cloned
// (a virtual machine's snapshot), and both clones go on without an Open, they
// share a data key and an offset.
//
// # Limits
//
// A random nonce may be drawn 2^32 times per key: so many master key wrappings,
// small secrets, and files per log. Then two are equal with a probability of
// 2^-33. A single message has at most 64 GiB less 32 bytes; more is an error. A
// stream has no limit that matters.
//
// # What is noticed
//
// A sealed thing opens only if it is whole and unchanged, and only with the same
// key and associated data. So a directory key belongs to its log ID; a data key
// to its file, if the associated data names that; a record to its file, its
// offset and its header, if that is the associated data; a chunk to its stream
// and its place there, the last one knowing that it is the last. A page's MAC
// covers the parts it was given, where each of them ends, and the role.
//
// What is not noticed: that a directory, or a page in it, was replaced by an
// older version of itself, and that records are missing at the end of an entry
// file. What is not hidden: lengths, and all that callers do not encrypt.
package encryption
