// The part of torch's stable C shim that generated code uses, on the tensors of runtime.h.
//
// Signatures are checked against torch's own header. Whatever else a graph would need is missing here on purpose:
// such a graph does not link, and the compiler refuses the model with the name of the operator.
#include "runtime.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <stdexcept>

struct Storage {
  void* memory;
  int bucket;
  std::atomic<int> references;
};

namespace {

// Four buckets per power of two from 4 KiB up, so that at most a fifth is wasted.
constexpr int kBuckets = 160;
std::mutex pool_mutex;
// What was freed, by bucket: each piece holds the address of the next, so that giving memory back never needs any.
void* pool_free[kBuckets];
size_t pool_bytes = 0;
thread_local bool out_of_memory = false;

size_t bucket_bytes(int bucket) { return (size_t(4) + bucket % 4) << (bucket / 4 + 10); }

Tensor* as_tensor(AtenTensorHandle handle) { return reinterpret_cast<Tensor*>(handle); }

// A description without data, or nullptr when there is no memory left.
Tensor* blank() {
  Tensor* t = new (std::nothrow) Tensor();
  if (!t) out_of_memory = true;
  return t;
}

AOTITorchError give(Tensor* tensor, AtenTensorHandle* result) {
  if (!tensor) return AOTI_TORCH_FAILURE;
  *result = reinterpret_cast<AtenTensorHandle>(tensor);
  return AOTI_TORCH_SUCCESS;
}

int64_t item_bytes(int32_t dtype) {
  switch (dtype) {
    case 0: case 1: case 11: return 1;   // uint8, int8, bool
    case 2: case 5: case 15: return 2;   // int16, float16, bfloat16
    case 3: case 6: return 4;            // int32, float32
    default: return 8;                   // int64, float64
  }
}

void describe(Tensor* t, int64_t ndim, const int64_t* sizes, const int64_t* strides, int32_t dtype) {
  t->ndim = ndim;
  t->dtype = dtype;
  std::memcpy(t->sizes, sizes, ndim * sizeof(int64_t));
  if (strides) {
    std::memcpy(t->strides, strides, ndim * sizeof(int64_t));
    return;
  }
  int64_t stride = 1;
  for (int64_t i = ndim - 1; i >= 0; --i) t->strides[i] = stride, stride *= sizes[i];
}

Tensor* allocate(int64_t ndim, const int64_t* sizes, const int64_t* strides, int32_t dtype) {
  if (ndim > kMaxDims) return nullptr;
  Tensor* t = blank();
  if (!t) return nullptr;
  describe(t, ndim, sizes, strides, dtype);
  int64_t extent = 1;
  for (int64_t i = 0; i < ndim; ++i) extent = sizes[i] ? extent + (sizes[i] - 1) * t->strides[i] : 0;
  t->storage = new (std::nothrow) Storage{nullptr, 0, {1}};
  out_of_memory |= !t->storage;
  if (t->storage) t->storage->memory = pool_take(extent * item_bytes(dtype), &t->storage->bucket);
  if (!t->storage || !t->storage->memory) {
    delete t->storage;
    delete t;
    return nullptr;
  }
  t->data = static_cast<char*>(t->storage->memory);
  return t;
}

Tensor* view(Tensor* of, int64_t ndim, const int64_t* sizes, const int64_t* strides, int64_t offset) {
  if (ndim > kMaxDims) return nullptr;
  Tensor* t = blank();
  if (!t) return nullptr;
  describe(t, ndim, sizes, strides, of->dtype);
  t->storage = of->storage;
  if (t->storage) t->storage->references.fetch_add(1, std::memory_order_relaxed);
  t->offset = offset;
  t->data = of->data + (offset - of->offset) * item_bytes(of->dtype);
  return t;
}

}  // namespace

void* pool_take(size_t bytes, int* bucket) {
  int b = 0;
  while (bucket_bytes(b) < bytes)
    if (++b == kBuckets) {
      out_of_memory = true;
      return nullptr;
    }
  *bucket = b;
  {
    std::lock_guard<std::mutex> lock(pool_mutex);
    if (void* memory = pool_free[b]) {
      std::memcpy(&pool_free[b], memory, sizeof(void*));
      pool_bytes -= bucket_bytes(b);
      return memory;
    }
  }
  void* memory = std::aligned_alloc(64, bucket_bytes(b));
  if (!memory) {
    pool_trim(0);
    memory = std::aligned_alloc(64, bucket_bytes(b));
  }
  if (!memory) out_of_memory = true;
  return memory;
}

void pool_give(void* memory, int bucket) {
  std::lock_guard<std::mutex> lock(pool_mutex);
  std::memcpy(memory, &pool_free[bucket], sizeof(void*));
  pool_free[bucket] = memory;
  pool_bytes += bucket_bytes(bucket);
}

void pool_trim(size_t keep_bytes) {
  std::lock_guard<std::mutex> lock(pool_mutex);
  if (pool_bytes <= keep_bytes) return;
  for (void*& bucket : pool_free)
    while (void* memory = bucket) {
      std::memcpy(&bucket, memory, sizeof(void*));
      std::free(memory);
    }
  pool_bytes = 0;
}

void clear_out_of_memory() { out_of_memory = false; }
bool ran_out_of_memory() { return out_of_memory; }

Tensor* new_tensor(int64_t ndim, const int64_t* sizes, int32_t dtype) { return allocate(ndim, sizes, nullptr, dtype); }

Tensor* borrow(void* data, int64_t numel, int32_t dtype) {
  Tensor* t = blank();
  if (!t) return nullptr;
  describe(t, 1, &numel, nullptr, dtype);
  t->data = static_cast<char*>(data);
  return t;
}

void release(Tensor* t) {
  if (t->storage && t->storage->references.fetch_sub(1) == 1) {
    pool_give(t->storage->memory, t->storage->bucket);
    delete t->storage;
  }
  delete t;
}

extern "C" {

// No constants live inside the generated libraries.
uint8_t _binary_constants_bin_start[16] = {};
uint8_t _binary_constants_bin_end[1] = {};

int32_t aoti_torch_device_type_cpu() { return 0; }
int32_t aoti_torch_device_type_cuda() { return 1; }
int32_t aoti_torch_layout_strided() { return 0; }
int32_t aoti_torch_dtype_uint8() { return 0; }
int32_t aoti_torch_dtype_int8() { return 1; }
int32_t aoti_torch_dtype_int32() { return 3; }
int32_t aoti_torch_dtype_int64() { return 4; }
int32_t aoti_torch_dtype_float16() { return 5; }
int32_t aoti_torch_dtype_float32() { return 6; }
int32_t aoti_torch_dtype_float64() { return 7; }
int32_t aoti_torch_dtype_bool() { return 11; }
int32_t aoti_torch_dtype_bfloat16() { return 15; }
size_t aoti_torch_dtype_element_size(int32_t dtype) { return item_bytes(dtype); }
bool aoti_torch_grad_mode_is_enabled() { return false; }
void aoti_torch_grad_mode_set_enabled(bool) {}

void aoti_torch_check(bool cond, const char*, const char*, uint32_t, const char* message) {
  if (!cond) throw std::runtime_error(message);
}

AOTITorchError aoti_torch_delete_tensor_object(AtenTensorHandle tensor) {
  if (tensor) release(as_tensor(tensor));
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_new_tensor_handle(AtenTensorHandle of, AtenTensorHandle* result) {
  Tensor* t = as_tensor(of);
  return give(view(t, t->ndim, t->sizes, t->strides, t->offset), result);
}

AOTITorchError aoti_torch__reinterpret_tensor(AtenTensorHandle self, int64_t ndim, const int64_t* sizes,
                                              const int64_t* strides, int64_t offset, AtenTensorHandle* result) {
  // The offset is relative to the tensor's own, as in torch.
  return give(view(as_tensor(self), ndim, sizes, strides, as_tensor(self)->offset + offset), result);
}

AOTITorchError aoti_torch_empty_strided(int64_t ndim, const int64_t* sizes, const int64_t* strides, int32_t dtype,
                                        int32_t, int32_t, AtenTensorHandle* result) {
  return give(allocate(ndim, sizes, strides, dtype), result);
}

AOTITorchError aoti_torch_create_tensor_from_blob(void* data, int64_t ndim, const int64_t* sizes,
                                                  const int64_t* strides, int64_t offset, int32_t dtype, int32_t,
                                                  int32_t, AtenTensorHandle* result) {
  if (ndim > kMaxDims) return AOTI_TORCH_FAILURE;
  Tensor* t = borrow(static_cast<char*>(data) + offset * item_bytes(dtype), 0, dtype);
  if (t) describe(t, ndim, sizes, strides, dtype), t->offset = offset;
  return give(t, result);
}

AOTITorchError aoti_torch_create_tensor_from_blob_v2(void* data, int64_t ndim, const int64_t* sizes,
                                                     const int64_t* strides, int64_t offset, int32_t dtype,
                                                     int32_t device_type, int32_t device_index,
                                                     AtenTensorHandle* result, int32_t, const uint8_t*, int64_t) {
  return aoti_torch_create_tensor_from_blob(data, ndim, sizes, strides, offset, dtype, device_type, device_index, result);
}

AOTITorchError aoti_torch_clone(AtenTensorHandle self, AtenTensorHandle* result) {
  Tensor *from = as_tensor(self), *t = allocate(from->ndim, from->sizes, from->strides, from->dtype);
  if (!t) return AOTI_TORCH_FAILURE;
  int64_t extent = 1;
  for (int64_t i = 0; i < t->ndim; ++i) extent = t->sizes[i] ? extent + (t->sizes[i] - 1) * t->strides[i] : 0;
  std::memcpy(t->data, from->data, extent * item_bytes(t->dtype));
  return give(t, result);
}

#define GETTER(NAME, TYPE, VALUE)                                     \
  AOTITorchError NAME(AtenTensorHandle tensor, TYPE* result) {        \
    Tensor* t = as_tensor(tensor);                                    \
    *result = VALUE;                                                  \
    return AOTI_TORCH_SUCCESS;                                        \
  }
GETTER(aoti_torch_get_data_ptr, void*, t->data)
GETTER(aoti_torch_get_sizes, int64_t*, t->sizes)
GETTER(aoti_torch_get_strides, int64_t*, t->strides)
GETTER(aoti_torch_get_storage_offset, int64_t, t->offset)
GETTER(aoti_torch_get_storage_size, int64_t, t->numel() * item_bytes(t->dtype))
GETTER(aoti_torch_get_dim, int64_t, t->ndim)
GETTER(aoti_torch_get_numel, int64_t, t->numel())
GETTER(aoti_torch_get_dtype, int32_t, t->dtype)
GETTER(aoti_torch_get_device_type, int32_t, (t ? 0 : 0))
GETTER(aoti_torch_get_device_index, int32_t, (t ? 0 : 0))
#undef GETTER

AOTITorchError aoti_torch_get_size(AtenTensorHandle tensor, int64_t dim, int64_t* result) {
  *result = as_tensor(tensor)->sizes[dim];
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_get_stride(AtenTensorHandle tensor, int64_t dim, int64_t* result) {
  *result = as_tensor(tensor)->strides[dim];
  return AOTI_TORCH_SUCCESS;
}

}  // extern "C"
