// One call of a kernel without Python: `kernels OPERATOR SCALAR... < tensors > results`. Linked against engine.so.
//
// Each tensor is int64 words (dtype, dimensions, sizes) and its contiguous data. The operators' scalars, in their
// order, are words of the command line. Attention is one step of one sequence: its scalars go on with the tokens held
// before and the bytes of a number in the cache, a fourth tensor holds the cache's pages, and these follow the result.
// With MATRIX in the environment, products use instructions that multiply matrices, or the exit status is 2.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "../../engines/native/engine.h"
#include "../../engines/native/runtime.h"

extern "C" {
int32_t aoti_torch_cpu_packed_linear(Tensor*, Tensor*, Tensor**, int64_t, int64_t, Tensor**);
int32_t aoti_torch_cpu_packed_embedding(Tensor*, Tensor*, int64_t, int64_t, Tensor**);
int32_t aoti_torch_cpu_cached_attention(Tensor*, Tensor*, Tensor*, Tensor*, int64_t, double, double, int64_t, Tensor**);
}

namespace {

int64_t bytes(const Tensor* t) { return t->numel() * (t->dtype == kUInt8 ? 1 : t->dtype == kInt64 ? 8 : 4); }

std::vector<Tensor*> read_tensors() {
  std::vector<Tensor*> tensors;
  for (int64_t head[2], sizes[kMaxDims]; std::fread(head, 8, 2, stdin) == 2;) {
    if (std::fread(sizes, 8, head[1], stdin) != size_t(head[1])) std::abort();
    tensors.push_back(new_tensor(head[1], sizes, head[0]));
    if (std::fread(tensors.back()->data, 1, bytes(tensors.back()), stdin) != size_t(bytes(tensors.back()))) std::abort();
  }
  return tensors;
}

}  // namespace

int main(int, char** arguments) {
  if (std::getenv("MATRIX") && engine_use_matrix(1) != kMatrixUsed) return 2;
  std::string name = arguments[1];
  auto integer = [&](int i) { return std::atoll(arguments[2 + i]); };
  auto real = [&](int i) { return std::atof(arguments[2 + i]); };
  std::vector<Tensor*> t = read_tensors();
  Tensor* result = nullptr;
  int32_t failed = 1;
  if (name == "linear") {
    failed = aoti_torch_cpu_packed_linear(t[0], t[1], t.size() > 2 ? &t[2] : nullptr, integer(0), integer(1), &result);
  } else if (name == "embedding") {
    failed = aoti_torch_cpu_packed_embedding(t[0], t[1], integer(0), integer(1), &result);
  } else if (name == "attention") {
    int64_t tokens = t[0]->sizes[2], past = integer(4);
    std::vector<char*> pages;
    for (int64_t i = 0; i < t[3]->sizes[0]; ++i) pages.push_back(t[3]->data + i * t[3]->sizes[1]);
    std::vector<int64_t> positions, owners(tokens);
    for (int64_t i = 0; i < tokens; ++i) positions.push_back(past + i);
    Step step{tokens, past, tokens, pages.data()};
    Batch batch{&step, 1, positions.data(), owners.data(), integer(5)};
    int64_t address = reinterpret_cast<int64_t>(&batch);
    Tensor* of = borrow(&address, 1, kInt64);
    failed = aoti_torch_cpu_cached_attention(t[0], t[1], t[2], of, integer(0), real(1), real(2), integer(3), &result);
  }
  if (failed) return 1;
  std::fwrite(result->data, 1, bytes(result), stdout);
  if (name == "attention") std::fwrite(t[3]->data, 1, bytes(t[3]), stdout);
  return 0;
}
