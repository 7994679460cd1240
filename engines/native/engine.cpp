// Opens the graph of a compiled model and runs it on caller-owned arrays.
#include "engine.h"

#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_runtime/interface.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "loops.h"
#include "runtime.h"
#include "team.h"

namespace {

constexpr size_t kKeptScratch = 64 << 20;  // bytes of scratch memory kept from one pass to the next
constexpr size_t kSharedLoops = 16;        // tokens from which generated loops are shared out; measured

AtenTensorHandle handle(Tensor* tensor) { return reinterpret_cast<AtenTensorHandle>(tensor); }

// A generated library; its functions have the types that torch's own header declares.
struct Graph {
  void* library = nullptr;
  AOTInductorModelHandle model = nullptr;
  decltype(&AOTInductorModelRun) run = nullptr;
  decltype(&AOTInductorModelDelete) destroy = nullptr;
  decltype(&AOTInductorGetLastError) last_error = nullptr;

  std::string open(const std::string& path, const char* weights, const Constant* constants, int64_t count) {
    library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) return dlerror();
    auto symbol = [&](const char* name) { return dlsym(library, name); };
    auto create = reinterpret_cast<decltype(&AOTInductorModelCreateV2)>(symbol("AOTInductorModelCreateV2"));
    auto bind = reinterpret_cast<decltype(&AOTInductorModelUpdateConstantsMapV2)>(
        symbol("AOTInductorModelUpdateConstantsMapV2"));
    run = reinterpret_cast<decltype(run)>(symbol("AOTInductorModelRun"));
    destroy = reinterpret_cast<decltype(destroy)>(symbol("AOTInductorModelDelete"));
    last_error = reinterpret_cast<decltype(last_error)>(symbol("AOTInductorGetLastError"));
    if (!create || !bind || !run || !destroy || !last_error) return path + " is not a compiled graph";
    // Created with one stand-in constant, so that it does not look for weights of its own; then given all of them.
    AOTInductorConstantMapEntry stand_in{"", handle(borrow(const_cast<char*>(weights), 0, kUInt8))};
    if (!stand_in.handle || create(&model, &stand_in, 1)) return path + " cannot be started";
    std::vector<AOTInductorConstantMapEntry> entries;
    for (int64_t i = 0; i < count; ++i) {
      char* bytes = const_cast<char*>(weights) + constants[i].offset;
      entries.push_back({constants[i].name, handle(borrow(bytes, constants[i].bytes, kUInt8))});
    }
    if (bind(model, entries.data(), (int32_t)entries.size())) return path + " does not accept the weights";
    return "";
  }

  std::string failure() const {
    const char* text = nullptr;
    return last_error(&text) == 0 && text ? text : "the graph failed";
  }

  ~Graph() {
    if (model) destroy(model);
    if (library) dlclose(library);
  }
};

void report(char* error, int64_t bytes, const char* text) { std::snprintf(error, bytes, "%s", text); }

// A tensor [1, n] or [n] over memory that outlives it.
Tensor* row_of(std::vector<int64_t>& values, bool batched) {
  Tensor* t = borrow(values.data(), (int64_t)values.size(), kInt64);
  if (t && batched) t->ndim = 2, t->sizes[1] = t->sizes[0], t->strides[0] = t->sizes[0], t->strides[1] = 1, t->sizes[0] = 1;
  return t;
}

}  // namespace

struct Engine {
  Graph graph;
  std::vector<Span> read_order;  // large weights by address
  int64_t element_bytes;
  Workers workers;

  Engine(int threads, const char* weights, const Constant* constants, int64_t count, int64_t element_bytes)
      : element_bytes(element_bytes), workers(threads) {
    constexpr int64_t kSmall = 64 << 10;
    for (int64_t i = 0; i < count; ++i)
      if (constants[i].bytes > kSmall)
        read_order.push_back({weights + constants[i].offset, constants[i].bytes});
    std::sort(read_order.begin(), read_order.end(), [](const Span& a, const Span& b) { return a.data < b.data; });
  }

  int32_t forward(const int64_t* ids, const Step* steps, int64_t count, float* logits, int64_t vocabulary, char* error,
                  int64_t error_bytes) {
    Team team(workers, read_order);
    std::vector<int64_t> tokens, positions, owners, keep;
    for (int64_t i = 0; i < count; ++i) {
      const Step& step = steps[i];
      for (int64_t j = 0; j < step.count; ++j) positions.push_back(step.past + j), owners.push_back(i);
      for (int64_t j = step.last; j > 0; --j) keep.push_back((int64_t)positions.size() - j);
    }
    tokens.assign(ids, ids + positions.size());
    share_loops(tokens.size() >= kSharedLoops);
    int64_t rows = (int64_t)keep.size();
    if (!rows) keep.push_back((int64_t)positions.size() - 1);  // the graph makes one row at least
    Batch batch{steps, count, positions.data(), owners.data(), element_bytes};
    std::vector<int64_t> address{reinterpret_cast<int64_t>(&batch)};
    AtenTensorHandle inputs[4] = {handle(row_of(tokens, true)), handle(row_of(positions, true)),
                                  handle(row_of(address, false)), handle(row_of(keep, false))};
    for (AtenTensorHandle input : inputs)
      if (!input) throw std::bad_alloc();
    AtenTensorHandle output = nullptr;
    clear_out_of_memory();
    if (graph.run(graph.model, inputs, &output)) {
      if (ran_out_of_memory()) throw std::bad_alloc();
      report(error, error_bytes, graph.failure().c_str());
      return kFailed;
    }
    Tensor* result = reinterpret_cast<Tensor*>(output);
    std::memcpy(logits, result->floats(), rows * vocabulary * sizeof(float));
    release(result);
    return kDone;
  }
};

extern "C" {

int32_t engine_abi() { return ENGINE_ABI; }

Engine* engine_open(const char* directory, const char* weights, const Constant* constants, int64_t count,
                    int64_t element_bytes, int32_t threads, char* error, int64_t error_bytes) {
  Engine* engine = nullptr;
  try {
    engine = new Engine(threads, weights, constants, count, element_bytes);
    std::string problem = engine->graph.open(std::string(directory) + "/model.so", weights, constants, count);
    if (problem.empty()) return engine;
    report(error, error_bytes, problem.c_str());
  } catch (const std::exception& exception) {
    report(error, error_bytes, exception.what());
  }
  delete engine;
  return nullptr;
}

int32_t engine_forward(Engine* engine, const int64_t* ids, const Step* steps, int64_t count, float* logits,
                       int64_t vocabulary, char* error, int64_t error_bytes) {
  int32_t result = kFailed;
  try {
    result = engine->forward(ids, steps, count, logits, vocabulary, error, error_bytes);
  } catch (const std::bad_alloc&) {
    result = kOutOfMemory;
  } catch (const std::exception& exception) {
    report(error, error_bytes, exception.what());
  } catch (...) {
    report(error, error_bytes, "the graph failed");
  }
  pool_trim(result == kOutOfMemory ? 0 : kKeptScratch);
  return result;
}

void engine_close(Engine* engine) { delete engine; }
}
