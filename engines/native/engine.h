// The C interface that engines/native_library.py calls. Version it with kAbi: the two sides must agree.
#pragma once

#include <cstdint>

extern "C" {

struct Engine;

struct Constant {
  const char* name;
  int64_t graphs;  // which graphs use it: 1 decode, 2 prefill, 3 both
  int64_t offset;  // bytes from the start of the weights
  int64_t bytes;
};

constexpr int32_t kAbi = 1;
int32_t engine_abi();

// Loads decode.so and prefill.so of `directory` and binds their constants to `weights`, which the caller keeps
// mapped and readable until engine_close. Returns nullptr and a message in `error` when it cannot.
Engine* engine_open(const char* directory, const char* weights, const Constant* constants, int64_t count,
                    int32_t threads, char* error, int64_t error_bytes);

// Runs ids [count] at positions past .. past + count over the cache and writes logits [last, vocabulary].
// `state` is the cache as attention.cpp describes it. The caller has checked every bound: ids, 1 <= last <= count,
// past + count <= capacity. Returns 0, or 1 with a message in `error`; 2 when memory ran out.
int32_t engine_forward(Engine* engine, const int64_t* ids, int64_t count, int64_t last, int64_t* state, float* logits,
                       int64_t vocabulary, char* error, int64_t error_bytes);

void engine_close(Engine* engine);
}
