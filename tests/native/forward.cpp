// Runs a compiled model without Python: `forward LIBRARIES WEIGHTS < request > logits`.
//
// LIBRARIES is the directory of one level, WEIGHTS the artifact's weight file. The request is words separated by white
// space: vocabulary, pages of the cache, bytes of a page, bytes of a number in it, threads; the number of constants, then
// name, offset and bytes of each; then calls until the end, each the number of its token ids and the ids. The logits
// after every token are written as float32 [tokens, vocabulary]. Opens and calls the library as
// engines/native_library.py does.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "../../engines/native/engine.h"

namespace {

template <typename T>
T read() {
  T value{};
  std::cin >> value;
  return value;
}

int fail(const char* message) {
  std::cerr << "forward: " << message << "\n";
  return 1;
}

}  // namespace

int main(int, char** arguments) {
  std::string libraries = arguments[1];
  void* library = dlopen((libraries + "/engine.so").c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return fail(dlerror());
  auto abi = reinterpret_cast<decltype(&engine_abi)>(dlsym(library, "engine_abi"));
  auto open_engine = reinterpret_cast<decltype(&engine_open)>(dlsym(library, "engine_open"));
  auto forward = reinterpret_cast<decltype(&engine_forward)>(dlsym(library, "engine_forward"));
  auto close_engine = reinterpret_cast<decltype(&engine_close)>(dlsym(library, "engine_close"));
  if (abi() != ENGINE_ABI) return fail("engine.so has another interface");

  int file = open(arguments[2], O_RDONLY);
  struct stat status{};
  fstat(file, &status);
  void* weights = mmap(nullptr, status.st_size, PROT_READ, MAP_SHARED, file, 0);
  if (weights == MAP_FAILED) return fail("the weights cannot be mapped");

  auto vocabulary = read<int64_t>(), page_count = read<int64_t>(), page_bytes = read<int64_t>();
  auto element_bytes = read<int64_t>();
  auto threads = read<int32_t>();
  std::vector<std::string> names(read<int64_t>());
  std::vector<Constant> constants;
  for (std::string& name : names) {
    name = read<std::string>();
    auto offset = read<int64_t>(), bytes = read<int64_t>();
    constants.push_back({name.c_str(), offset, bytes});
  }
  char error[1024];
  Engine* engine = open_engine(libraries.c_str(), static_cast<char*>(weights), constants.data(), constants.size(),
                               element_bytes, threads, error, sizeof error);
  if (!engine) return fail(error);

  std::vector<char> cache(page_count * page_bytes);
  std::vector<char*> pages;
  for (int64_t i = 0; i < page_count; ++i) pages.push_back(cache.data() + i * page_bytes);
  int64_t past = 0;
  for (int64_t count; std::cin >> count; past += count) {
    std::vector<int64_t> ids(count);
    for (int64_t& id : ids) id = read<int64_t>();
    std::vector<float> logits(count * vocabulary);
    Step step{count, past, count, pages.data()};
    if (forward(engine, ids.data(), &step, 1, logits.data(), vocabulary, error, sizeof error))
      return fail(error);
    std::fwrite(logits.data(), sizeof(float), logits.size(), stdout);
  }
  close_engine(engine);
  return 0;
}
