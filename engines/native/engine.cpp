// Opens the two graphs of a compiled model and runs them on caller-owned arrays.
#include "engine.h"

#include <dlfcn.h>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "runtime.h"
#include "team.h"

namespace {

struct Entry {
  const char* name;
  Tensor* tensor;
};

// The functions of a generated library that are used here (torch/csrc/inductor/aoti_runtime/interface.h).
struct Graph {
  void* library = nullptr;
  void* model = nullptr;
  int32_t (*run)(void*, Tensor**, Tensor**) = nullptr;
  int32_t (*destroy)(void*) = nullptr;
  const char* (*last_error)() = nullptr;

  std::string open(const std::string& path, int64_t bit, const char* weights, const Constant* constants, int64_t count) {
    library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return dlerror();
    auto symbol = [&](const char* name) { return dlsym(library, name); };
    auto create = reinterpret_cast<int32_t (*)(void**, const Entry*, size_t)>(symbol("AOTInductorModelCreateV2"));
    auto bind = reinterpret_cast<int32_t (*)(void*, const Entry*, int32_t)>(symbol("AOTInductorModelUpdateConstantsMapV2"));
    run = reinterpret_cast<decltype(run)>(symbol("AOTInductorModelRun"));
    destroy = reinterpret_cast<decltype(destroy)>(symbol("AOTInductorModelDelete"));
    last_error = reinterpret_cast<decltype(last_error)>(symbol("AOTInductorGetLastError"));
    if (!create || !bind || !run || !destroy) return path + " is not a compiled graph";
    // Created with one stand-in constant, so that it does not look for weights of its own; then given all of them.
    Entry stand_in{"", borrow(const_cast<char*>(weights), 0, kUInt8)};
    if (!stand_in.tensor || create(&model, &stand_in, 1)) return path + " cannot be started";
    std::vector<Entry> entries;
    for (int64_t i = 0; i < count; ++i)
      if (constants[i].graphs & bit)
        entries.push_back(
            {constants[i].name, borrow(const_cast<char*>(weights) + constants[i].offset, constants[i].bytes, kUInt8)});
    if (bind(model, entries.data(), (int32_t)entries.size())) return path + " does not accept the weights";
    return "";
  }

  ~Graph() {
    if (model) destroy(model);
    if (library) dlclose(library);
  }
};

void report(char* error, int64_t bytes, const std::string& text) {
  std::snprintf(error, bytes, "%s", text.c_str());
}

}  // namespace

struct Engine {
  Graph decode, prefill;
  std::vector<Span> read_order;  // the decode graph's weights by address
  Workers workers;

  Engine(int threads, const char* weights, const Constant* constants, int64_t count) : workers(threads) {
    constexpr int64_t kSmall = 64 << 10;
    for (int64_t i = 0; i < count; ++i)
      if (constants[i].graphs & 1 && constants[i].bytes > kSmall)
        read_order.push_back({weights + constants[i].offset, constants[i].bytes});
    std::sort(read_order.begin(), read_order.end(), [](const Span& a, const Span& b) { return a.data < b.data; });
  }
};

extern "C" {

int32_t engine_abi() { return kAbi; }

Engine* engine_open(const char* directory, const char* weights, const Constant* constants, int64_t count,
                    int32_t threads, char* error, int64_t error_bytes) {
  auto* engine = new Engine(threads, weights, constants, count);
  std::string where = std::string(directory) + "/", problem;
  problem = engine->decode.open(where + "decode.so", 1, weights, constants, count);
  if (problem.empty()) problem = engine->prefill.open(where + "prefill.so", 2, weights, constants, count);
  if (problem.empty()) return engine;
  report(error, error_bytes, problem);
  delete engine;
  return nullptr;
}

int32_t engine_forward(Engine* engine, const int64_t* ids, int64_t count, int64_t last, int64_t* state, float* logits,
                       int64_t vocabulary, char* error, int64_t error_bytes) {
  constexpr size_t kKeep = 64 << 20;
  Team team(engine->workers, engine->read_order);
  bool decode = count == 1;
  // The prefill graph is compiled for two rows of logits or more.
  int64_t rows = decode ? 1 : std::max<int64_t>(last, 2);
  std::vector<int64_t> positions(count), keep(rows);
  for (int64_t i = 0; i < count; ++i) positions[i] = state[2] + i;
  for (int64_t i = 0; i < rows; ++i) keep[i] = count - rows + i;
  auto two = [](const int64_t* data, int64_t n) {
    Tensor* t = borrow(const_cast<int64_t*>(data), n, kInt64);
    if (t) t->ndim = 2, t->sizes[0] = 1, t->sizes[1] = n, t->strides[0] = n, t->strides[1] = 1;
    return t;
  };
  Tensor* inputs[4] = {two(ids, count), two(positions.data(), count), borrow(state, 4, kInt64),
                       borrow(keep.data(), rows, kInt64)};
  if (!inputs[0] || !inputs[1] || !inputs[2] || !inputs[3]) return 2;
  Tensor* output = nullptr;
  Graph& graph = decode ? engine->decode : engine->prefill;
  int32_t failed = graph.run(graph.model, inputs, &output);
  if (!failed) {
    std::memcpy(logits, output->floats() + (rows - last) * vocabulary, last * vocabulary * sizeof(float));
    release(output);
  }
  pool_trim(kKeep);
  if (!failed) return 0;
  report(error, error_bytes, graph.last_error ? graph.last_error() : "the graph failed");
  return 1;
}

void engine_close(Engine* engine) { delete engine; }
}
