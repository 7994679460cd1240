// The C interface that engines/native_library.py calls, and what one forward pass is told.
//
// ENGINE_ABI and PAGE_TOKENS are written once, in engines/native_library.py and engines/base.py; the compiler hands them
// over as macros.
#pragma once

#include <cstdint>

constexpr int64_t kPageTokens = PAGE_TOKENS;  // tokens in a page of the KV cache

extern "C" {

struct Engine;

struct Constant {
  const char* name;
  int64_t offset;  // bytes from the start of the weights
  int64_t bytes;
};

// One sequence's part of a forward pass. Page i of its cache holds tokens kPageTokens * i to kPageTokens * (i + 1).
struct Step {
  int64_t count;       // tokens to append, at positions past, past + 1, ...
  int64_t past;        // tokens that the cache holds before
  int64_t last;        // after how many of the last tokens logits are wanted, 0 to count
  char* const* pages;  // of past + count tokens; those that hold the new ones belong to this sequence alone
};

// A pass as the attention operator sees it, through the address in the graph's `batch` tensor.
struct Batch {
  const Step* steps;
  int64_t count;             // of steps
  const int64_t* positions;  // of each token of the pass in its own sequence
  const int64_t* owners;     // each token's step
  int64_t element_bytes;     // of a number in the cache: 4 (float) or 2 (int16_t), see cache.h
};

enum EngineResult : int32_t { kDone = 0, kFailed = 1, kOutOfMemory = 2 };

int32_t engine_abi();

// Says whether this process may use instructions that multiply matrices (matrix.h: Intel's AMX, Arm's i8mm), from the
// next pass on; asks the system for permission where it must. They are unused at first.
enum MatrixUse : int32_t { kMatrixUnused = 0, kMatrixUsed = 1, kMatrixForbidden = 2 };
int32_t engine_use_matrix(int32_t wanted);

// Loads model.so of `directory` and binds its constants to `weights`, which the caller keeps
// mapped and readable until engine_close. Returns nullptr and a message in `error` when it cannot.
Engine* engine_open(const char* directory, const char* weights, const Constant* constants, int64_t count,
                    int64_t element_bytes, int32_t threads, char* error, int64_t error_bytes);

// Runs all steps in one pass. `ids` holds their tokens one step after the other, `logits` [sum of last, vocabulary]
// receives their rows in the same order. The caller has checked every bound. What a row is depends on its own sequence
// alone. Unless it returns kDone, the message is in `error` and the logits and the new tokens' pages hold anything.
int32_t engine_forward(Engine* engine, const int64_t* ids, const Step* steps, int64_t count, float* logits,
                       int64_t vocabulary, char* error, int64_t error_bytes);

void engine_close(Engine* engine);
}
