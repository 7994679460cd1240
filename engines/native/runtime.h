// Tensors as AOTInductor's generated code sees them, without libtorch.
//
// The generated code reaches tensors only through the C functions of torch's stable shim, about thirty of them.
// runtime.cpp implements those, so that a cold start loads a few hundred kilobytes instead of libtorch_cpu.
#pragma once

#include <cstddef>
#include <cstdint>

constexpr int kMaxDims = 8;

// Memory shared by the views on it. `bucket` < 0: borrowed, never freed here.
struct Storage;

struct Tensor {
  char* data;  // of element 0, storage offset included
  Storage* storage;
  int64_t ndim;
  int64_t sizes[kMaxDims];
  int64_t strides[kMaxDims];  // in elements
  int64_t offset;             // in elements
  int32_t dtype;

  float* floats() const { return reinterpret_cast<float*>(data); }
  int64_t* ints() const { return reinterpret_cast<int64_t*>(data); }
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t i = 0; i < ndim; ++i) n *= sizes[i];
    return n;
  }
};

constexpr int32_t kFloat32 = 6, kInt64 = 4, kUInt8 = 0;  // c10::ScalarType's numbers

// A contiguous tensor of new memory, or nullptr when there is none left.
Tensor* new_tensor(int64_t ndim, const int64_t* sizes, int32_t dtype);
// A one-dimensional view on memory that outlives it.
Tensor* borrow(void* data, int64_t numel, int32_t dtype);
void release(Tensor* tensor);

// 64-byte aligned memory from a pool that keeps what was freed; nullptr when there is none left.
void* pool_take(size_t bytes, int* bucket);
void pool_give(void* memory, int bucket);
// Returns all that the pool keeps to the system, where that is more than `keep_bytes`.
void pool_trim(size_t keep_bytes);

// Whether an allocation of this thread has failed since it was last cleared: generated code tells only that an operator
// failed.
void clear_out_of_memory();
bool ran_out_of_memory();

// Scratch memory of one call.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : memory_(pool_take(bytes, &bucket_)) {}
  ~Scratch() {
    if (memory_) pool_give(memory_, bucket_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  explicit operator bool() const { return memory_ != nullptr; }
  template <typename T>
  T* as(size_t byte_offset = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(memory_) + byte_offset);
  }

 private:
  int bucket_;
  void* memory_;
};

inline int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
