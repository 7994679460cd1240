// Text to token ids with tables that lie in a mapped file and are used in place: the ids of the `tokenizers` library for
// byte-level BPE and for BPE with byte fallback.
//
// generation/tokenizer_file.py describes the file; its names of sections, options and kinds reach this code as macros.
// It has checked where the sections lie and how large they are. What they hold is not trusted: an altered file gives
// other ids or kDamaged, and nothing is read outside a section. Texts must be valid UTF-8. Nothing is kept between
// calls, which may overlap.
#pragma once

#include <cstdint>

extern "C" {

constexpr int64_t kNoMemory = -1, kDamaged = -2;

// The version of the file that this code reads.
int32_t tokenizer_version();

// Writes the ids of `text` to `ids` and returns how many there are; beyond `capacity` none is written. `whole` is 0 for
// a text that was normalised and holds no added token which is matched before that.
int64_t tokenizer_encode(const void* file, const uint8_t* text, int64_t size, int32_t whole, int64_t* ids, int64_t capacity);

// Where the next added token lies that is matched before texts are normalised: `found` gets its first byte, the byte
// after its last, and its id. 0 where there is none from `begin` on.
int32_t tokenizer_find_added(const void* file, const uint8_t* text, int64_t size, int64_t begin, int64_t* found);

// The id of the token with these bytes, of those that words are made of; -1 where there is none.
int64_t tokenizer_find(const void* file, const uint8_t* text, int64_t size);

// For the compiler: fills empty hash tables. A merge is left, right, rank and the id it gives; `slots` are `size` of them,
// of 0xFF bytes. Entries of the vocabulary are ids, whose bytes end at `ends[id + 1]`. Returns 0, or 1 for a full table.
int32_t tokenizer_fill_merges(uint32_t* slots, int64_t size, const uint32_t* merges, int64_t count);
int32_t tokenizer_fill_vocabulary(uint32_t* slots, int64_t size, const uint32_t* ids, int64_t count, const uint32_t* ends,
                                  const uint8_t* bytes);
}
